// What a disk promises about power and errors: after a completed flush or FUA the data is there, a
// failure has the status that says so, and Identify is honest about the cache.
#include <cerrno>
#include <random>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/nvme_program.h"
#include "tests/unit/nvme_torn_backend.h"
#include "tools/nvme/file_backends.h"

namespace outboard::nvme::test {
namespace {

using Kind = BackendRequest::Kind;

constexpr u32 kForce = 1u << 30;
constexpr u32 kBlocks = 64;

struct Torn {
  explicit Torn(std::vector<std::byte> content = std::vector<std::byte>(kBlocks * 512))
      : backend(new TornBackend(std::move(content))), guest(one(wrap(backend))) {
    guest.enable();
    REQUIRE(guest.create_pair(1, 16) == Status::success);
  }
  static Namespace wrap(TornBackend* backend) {
    Namespace ns;
    ns.backend.reset(backend);
    return ns;
  }
  Status run(IoOpcode opcode, u32 block, u32 flags = 0) {
    Command command = Driver::io(opcode, 1, block, 1);
    command.dw12 |= flags;
    return guest.run(1, command).status;
  }
  Status write(u32 block, u64 value, u32 flags = 0) {
    put<u64>(guest.data(512), 0, value);
    return run(IoOpcode::write, block, flags);
  }
  void cache(bool on) {
    Command command = Driver::admin(AdminOpcode::set_features);
    command.dw10 = static_cast<u32>(FeatureId::write_cache);
    command.dw11 = on ? 1 : 0;
    REQUIRE(guest.run(0, command).status == Status::success);
  }
  TornBackend* backend;
  Driver guest;
};

}  // namespace

TEST_CASE(
    "NVMe 1.4 §6.8, §6.15, §5.21.1.6: power cut at any time leaves what a completed flush, FUA or "
    "a "
    "disabled write cache has promised, and no block older than that") {
  std::mt19937_64 random(11);
  std::vector<std::byte> media(kBlocks * 512);
  std::array<u64, kBlocks> promised{};  // the least that each block holds; values only grow
  std::array<u64, kBlocks> written{};
  u64 value = 0;
  u64 lost = 0;
  for (int cut = 0; cut < 300; ++cut) {
    Torn disk(media);
    bool cached = true;
    for (u64 n = random() % 60; n > 0; --n) {
      const u32 block = static_cast<u32>(random() % kBlocks);
      switch (random() % 12) {
        case 0:
          REQUIRE(disk.run(IoOpcode::flush, 0) == Status::success);
          promised = written;
          break;
        case 1: {
          Command all = Driver::io(IoOpcode::flush, kBroadcastNamespace, 0, 1);
          REQUIRE(disk.guest.run(1, all).status == Status::success);
          promised = written;
          break;
        }
        case 2:
          cached = !cached;
          disk.cache(cached);
          break;
        case 3:
          // §6.9: what a read with FUA brings is on the media.
          REQUIRE(disk.run(IoOpcode::read, block, kForce) == Status::success);
          promised[block] = written[block];
          break;
        default: {
          const bool force = random() % 3 == 0;
          REQUIRE(disk.write(block, ++value, force ? kForce : 0) == Status::success);
          written[block] = value;
          if (force || !cached) promised[block] = value;
          break;
        }
      }
    }
    media = disk.backend->cut_power(random);
    for (u32 block = 0; block < kBlocks; ++block) {
      const u64 there = get<u64>(media, block * 512u);
      REQUIRE(there >= promised[block]);
      REQUIRE(there <= written[block]);
      lost += there < written[block] ? 1 : 0;
      promised[block] = written[block] = there;
    }
  }
  CHECK(lost > 100);  // the cuts did cut something
}

TEST_CASE(
    "NVMe 1.4 §6.15: write zeroes with FUA outlast a power cut, without it they need a flush") {
  std::mt19937_64 random(3);
  for (const bool force : {true, false}) {
    Torn disk;
    REQUIRE(disk.write(5, 77, kForce) == Status::success);
    REQUIRE(disk.run(IoOpcode::write_zeroes, 5, force ? kForce : 0) == Status::success);
    CHECK(get<u64>(disk.backend->stable, 5 * 512) == (force ? 0 : 77));
    REQUIRE(disk.run(IoOpcode::flush, 0) == Status::success);
    CHECK(get<u64>(disk.backend->stable, 5 * 512) == 0);
  }
}

TEST_CASE("NVMe 1.4 §7.6.2: a shutdown ends with the cache on the media") {
  Torn disk;
  REQUIRE(disk.write(9, 99) == Status::success);
  CHECK(get<u64>(disk.backend->stable, 9 * 512) == 0);
  disk.guest.write32(reg::cc, 6u << 16 | 4u << 20 | 1u << 14 | 1);
  disk.guest.turn_until_quiet();
  for (int i = 0; i < 10; ++i) disk.guest.controller.turn();
  CHECK((disk.guest.read32(reg::csts) & kCstsShutdownMask) == kCstsShutdownComplete);
  CHECK(get<u64>(disk.backend->stable, 9 * 512) == 99);
}

TEST_CASE("NVMe 1.4 §4.5.1: ENOSPC, EIO and the like are told by the status that says so") {
  struct Row {
    int error;
    Kind kind;
    IoOpcode opcode;
    Status status;
  };
  for (const Row& row : {
           Row{ENOSPC, Kind::write, IoOpcode::write, Status::capacity_exceeded},
           Row{EDQUOT, Kind::write, IoOpcode::write, Status::capacity_exceeded},
           Row{EFBIG, Kind::write, IoOpcode::write, Status::capacity_exceeded},
           Row{EIO, Kind::write, IoOpcode::write, Status::write_fault},
           Row{EROFS, Kind::write, IoOpcode::write, Status::namespace_write_protected},
           Row{ENOMEM, Kind::write, IoOpcode::write, Status::internal_error},
           Row{EIO, Kind::read, IoOpcode::read, Status::unrecovered_read},
           Row{EIO, Kind::flush, IoOpcode::flush, Status::write_fault},
           Row{ENOSPC, Kind::flush, IoOpcode::flush, Status::capacity_exceeded},
           Row{EIO, Kind::write_zeroes, IoOpcode::write_zeroes, Status::write_fault},
           Row{ENOSPC, Kind::write_zeroes, IoOpcode::write_zeroes, Status::capacity_exceeded},
       }) {
    CAPTURE(row.error);
    CAPTURE(static_cast<int>(row.opcode));
    Torn disk;
    REQUIRE(disk.write(1, 42, kForce) == Status::success);
    disk.backend->fail_with = row.error;
    disk.backend->fail_kind = row.kind;
    CHECK(disk.run(row.opcode, 1) == row.status);
    CHECK(get<u64>(disk.backend->stable, 512) == 42);
    disk.backend->fail_with = 0;
    CHECK(disk.run(row.opcode, 1) == Status::success);
  }
}

// In a process with a file system of its own, of 256 KiB; the exit status says what went wrong.
int fill_up(const std::string& folder, bool threads) {
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return 77;
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=256k") != 0) {
    return 77;
  }
  const std::string path = folder + "/image";
  const vfio_user::UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (ftruncate(fd.get(), 1 << 20) != 0) return 1;
  auto image = FileImage::open(path, false, 512);
  if (!image) return 2;
  std::string why;
  Namespace ns;
  if (!threads) ns.backend = make_uring_backend(*image, why);
  if (!ns.backend) ns.backend = make_thread_backend(std::move(*image), 1);
  Driver guest(one(std::move(ns)));
  guest.enable();
  if (guest.create_pair(1, 16) != Status::success) return 3;
  const auto write = [&](u32 page) {
    put<u64>(guest.data(4096), 0, page + 1);
    return guest.run(1, Driver::io(IoOpcode::write, 1, 8u * page, 8)).status;
  };
  u32 good = 0;
  while (good < 256 && write(good) == Status::success) ++good;
  if (good < 8 || good > 64) return 4;
  if (write(good) != Status::capacity_exceeded) return 5;
  if (guest.run(1, Driver::io(IoOpcode::flush, 1, 0, 1)).status != Status::success) return 6;
  for (u32 page = 0; page < good; ++page) {
    if (guest.run(1, Driver::io(IoOpcode::read, 1, 8u * page, 8)).status != Status::success)
      return 7;
    if (get<u64>(guest.data(), 0) != page + 1) return 8;
  }
  // Room again, for what had none.
  Command free = Driver::io(IoOpcode::write_zeroes, 1, 0, 8);
  free.dw12 |= 1u << 25;  // deallocate
  if (guest.run(1, free).status != Status::success) return 9;
  return write(good) == Status::success ? 0 : 10;
}

TEST_CASE("NVMe 1.4 §4.5.1.2 a full file system is Capacity Exceeded, and hurts nothing else") {
  for (const bool threads : {false, true}) {
#ifdef __SANITIZE_THREAD__  // which knows no threads in the child of a fork
    if (threads) continue;
#endif
    CAPTURE(threads);
    std::string folder = socket_path() + ".XXXXXX";
    REQUIRE(mkdtemp(folder.data()) != nullptr);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) _exit(fill_up(folder, threads));
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    rmdir(folder.c_str());
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
      MESSAGE("no mount name space is to be had here: not tested with a real file system");
      return;
    }
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE("NVMe 1.4 §5.15.2.2 VWC: a cache is there when a namespace has one, and only then") {
  const auto volatile_cache = [](std::vector<Namespace> namespaces) {
    Driver guest(std::move(namespaces));
    guest.enable();
    Command command = Driver::admin(AdminOpcode::identify);
    command.dw10 = 1;
    command.pointer1 = kDataAt;
    REQUIRE(guest.run(0, command).status == Status::success);
    return (get<u8>(guest.data(), 525) & 1) != 0;
  };
  CHECK(volatile_cache(one(Torn::wrap(new TornBackend(std::vector<std::byte>(512))))));
  CHECK_FALSE(volatile_cache(one(memory_namespace(4096))));
}

}  // namespace outboard::nvme::test
