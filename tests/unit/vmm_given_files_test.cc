// What outboard is started with in place of paths: each descriptor is what it should be, or one
// clear line and the documented status say what it is not (issue 5, item 7).
#include <functional>
#include <string>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/board.h"
#include "vmm/config.h"
#include "vmm/device_connect.h"
#include "vmm/given_files.h"
#include "vmm/guest_image.h"

using namespace outboard;
using namespace outboard::vmm;
using vfio_user::GivenFds;
using vfio_user::UniqueFd;

namespace {

constexpr std::uint64_t kSize = 64 * kMiB;

UniqueFd memfd(std::uint64_t size, unsigned flags = MFD_ALLOW_SEALING, int seals = 0) {
  UniqueFd fd(::memfd_create("test", flags | MFD_CLOEXEC));
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(size)) == 0);
  if (seals != 0) REQUIRE(::fcntl(fd.get(), F_ADD_SEALS, seals) == 0);
  return fd;
}

// Its name; the file is whoever takes it over's.
std::string given(UniqueFd fd) {
  return "fd:" + std::to_string(fd.release());
}
std::string given(const char* path, int flags = O_RDWR) {
  return given(UniqueFd(::open(path, flags | O_CLOEXEC)));
}

MachineConfig machine() {
  MachineConfig config;
  config.memory = kSize;
  return config;
}

std::string memory_fault(UniqueFd fd, PageSize page_size = PageSize::k4) {
  const auto checked = check_memory_file(fd.get(), kSize, page_size);
  return checked ? "" : checked.error().message;
}

}  // namespace

TEST_CASE("guest memory that is given has to be a file of that size that stays so") {
  constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;
  CHECK(memory_fault(memfd(kSize)).empty());
  CHECK(memory_fault(memfd(kSize, MFD_ALLOW_SEALING, kSizeSeals | F_SEAL_SEAL)).empty());
  CHECK(memory_fault(memfd(kSize - 4096)).find("machine.memory is 64M (67108864)") !=
        std::string::npos);
  CHECK(memory_fault(memfd(kSize, 0)).find("no seal can be added") != std::string::npos);
  CHECK(memory_fault(memfd(kSize, MFD_ALLOW_SEALING, F_SEAL_SHRINK | F_SEAL_SEAL))
            .find("no seal can be added") != std::string::npos);
  CHECK(memory_fault(memfd(kSize, MFD_ALLOW_SEALING, F_SEAL_FUTURE_WRITE)) ==
        "it is sealed against writing");
  CHECK(memory_fault(memfd(kSize), PageSize::m2).find("it has pages of 4K") != std::string::npos);
  CHECK(memory_fault(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))).find("no memfd") !=
        std::string::npos);
  CHECK(memory_fault(UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC))).find("no memfd") !=
        std::string::npos);
  const UniqueFd writable = memfd(kSize);
  const std::string link = "/proc/self/fd/" + std::to_string(writable.get());
  CHECK(memory_fault(UniqueFd(::open(link.c_str(), O_RDONLY | O_CLOEXEC))) ==
        "it is not open for reading and writing");
}

TEST_CASE("a machine over given memory uses that file, and nobody can resize it afterwards") {
  UniqueFd fd = memfd(kSize);
  const UniqueFd mine(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  const auto memory = GuestMemory::create({{0, kSize, 0}}, PageSize::k4, {}, std::move(fd));
  REQUIRE_MESSAGE(memory, memory.error().message);
  memory->at(0x1000, 1)[0] = std::byte{42};
  char seen = 0;
  REQUIRE(::pread(mine.get(), &seen, 1, 0x1000) == 1);
  CHECK(seen == 42);
  CHECK(::ftruncate(mine.get(), 0) != 0);
  CHECK(::ftruncate(mine.get(), 2 * kSize) != 0);
}

TEST_CASE("a descriptor that is not what it should be: one line, the status of its kind") {
  struct Row {
    std::string fd;
    std::function<Result<void>(const std::string&)> use;
    ExitStatus status;
    std::string line;
  };
  const auto as_kvm = [](const std::string& fd) -> Result<void> {
    auto config = machine();
    config.kvm = fd;
    auto board = Board::create(config);
    if (board) return {};
    return tl::unexpected(board.error());
  };
  const auto as_kernel = [](const std::string& fd) -> Result<void> {
    auto config = machine();
    config.kernel = fd;
    auto image = GuestImage::open(config);
    if (image) return {};
    return tl::unexpected(image.error());
  };
  const Row rows[] = {
      {"fd:987", as_kvm, ExitStatus::no_kvm, "fd:987 is not open"},
      {given("/dev/null"), as_kvm, ExitStatus::no_kvm, "does not answer as KVM"},
      {"fd:987", as_kernel, ExitStatus::boot_image, "fd:987 is not open"},
      {given("/dev/null"), as_kernel, ExitStatus::boot_image, "is no regular file"},
      {given("/", O_RDONLY), as_kernel, ExitStatus::boot_image, "is no regular file"},
      {given(memfd(0)), as_kernel, ExitStatus::boot_image, "is empty"},
      {given("/proc/self/exe", O_PATH), as_kernel, ExitStatus::boot_image,
       "is not open for reading; it is kernel.path"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.line);
    const auto used = row.use(row.fd);
    REQUIRE_FALSE(used);
    CHECK(used.error().status == row.status);
    CHECK_MESSAGE(used.error().message.find(row.line) != std::string::npos, used.error().message);
    CHECK(used.error().message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a device's descriptor that is no connected socket fails its attach by name") {
  const auto memory = GuestMemory::create({{0, kSize, 0}}, PageSize::k4);
  REQUIRE(memory);
  const auto fault = [&](const std::string& socket) {
    DeviceConfig device;
    ConnectCancel cancel;
    const auto attached = connect_device({.config = device, .memory = *memory}, socket, cancel);
    return attached ? std::string() : attached.error().message;
  };
  CHECK(fault("fd:987") == "fd:987 is not open: whoever starts this program must pass it");
  CHECK(fault(given("/dev/null")).ends_with("': the file descriptor is no socket"));
  CHECK(fault(given(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))))
            .ends_with("is no connected Unix stream socket"));
  CHECK(fault(given("/", O_RDONLY) + "/absent.sock").find("it does not exist") !=
        std::string::npos);
  CHECK(fault(given("/dev/null") + "/absent.sock").find("is no directory") != std::string::npos);
}

TEST_CASE("names become numbers; a descriptor has one use, but a directory any number") {
  MachineConfig config;
  config.kvm = "fd:kvm";
  config.memory_fd = "fd:40";
  config.kernel = "fd:kernel";
  config.initrd = "/boot/initrd";
  config.devices.resize(2);
  config.devices[0].socket = "fd:run/a.sock";
  config.devices[1].socket = "fd:run/b.sock";
  const GivenFds passed({"kvm", "kernel", "run"});
  REQUIRE(resolve_given_fds(config, passed));
  CHECK(config.kvm == "fd:3");
  CHECK(config.memory_fd == "fd:40");
  CHECK(config.kernel == "fd:4");
  CHECK(config.initrd == "/boot/initrd");
  CHECK(config.devices[0].socket == "fd:5/a.sock");
  CHECK(config.devices[1].socket == "fd:5/b.sock");

  config.devices[1].socket = "fd:kvm";
  config.devices[1].name = "disk";
  const auto twice = resolve_given_fds(config, passed);
  REQUIRE_FALSE(twice);
  CHECK(twice.error().status == ExitStatus::configuration);
  CHECK(twice.error().message ==
        "socket of device 'disk': fd:3 is machine.kvm already; pass another descriptor");
  config.devices[1].socket = "fd:nobody";
  const auto unknown = resolve_given_fds(config, passed);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.starts_with(
      "socket of device 'disk': 'fd:nobody': no descriptor of that name was passed"));
}

TEST_CASE("fd: in a configuration is no path, and a connected socket cannot be reconnected") {
  const auto parse = [](const std::string& device) {
    return parse_config(
        "[machine]\nkvm = \"fd:kvm\"\n[kernel]\npath = \"fd:3\"\n[[device]]\nname = "
        "\"d\"\n" +
            device,
        "m.toml", "/etc/vm", {});
  };
  const auto config = parse("socket = \"fd:disk\"\n");
  REQUIRE(config);
  CHECK(config->kvm == "fd:kvm");
  CHECK(config->kernel == "fd:3");
  CHECK(config->devices[0].socket == "fd:disk");
  CHECK(is_connected_socket(config->devices[0]));
  const auto refused = parse("socket = \"fd:disk\"\non_disconnect = \"reconnect\"\n");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().lines.at(0) ==
        "m.toml:8:17: device 'd' is given as a connected socket, which cannot be connected again; "
        "pass its directory, socket = \"fd:DIRECTORY/NAME.sock\", or choose on_disconnect = "
        "\"stop\" or \"detach\"");
  CHECK(
      parse("socket = \"fd:run/" + std::string(107, 's') + "\"\non_disconnect = \"reconnect\"\n"));
  const auto path = parse_config("[machine]\nmemory_fd = \"/dev/shm/x\"\n[kernel]\npath = \"k\"\n",
                                 "m.toml", "/", {});
  REQUIRE_FALSE(path);
  CHECK(path.error().lines.at(0).find("write \"fd:NUMBER\" or \"fd:NAME\"") != std::string::npos);
}
