#include <cerrno>
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/nvme_guest.h"
#include "tools/nvme/file_backends.h"
#include "tools/nvme/file_step.h"

namespace outboard::nvme::test {
namespace {

using Kind = BackendRequest::Kind;

class TempFile {
 public:
  explicit TempFile(u64 size) {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/outboard-nvme-test.XXXXXX";
    const int fd = mkstemp(path_.data());
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, static_cast<off_t>(size)) == 0);
    close(fd);
  }
  ~TempFile() { unlink(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::unique_ptr<Backend> open_backend(const std::string& path, bool threads,
                                      bool read_only = false) {
  auto image = FileImage::open(path, read_only, 512);
  REQUIRE_MESSAGE(image.has_value(), (image ? "" : image.error()));
  if (threads) return make_thread_backend(std::move(*image), 3);
  std::string why;
  auto backend = make_uring_backend(*image, why);
  if (!backend) MESSAGE("io_uring is refused here (" << why << "); threads take its part");
  return backend ? std::move(backend) : make_thread_backend(std::move(*image), 3);
}

int run(Backend& backend, BackendRequest& request) {
  backend.submit(request);
  backend.kick();
  std::vector<BackendRequest*> done;
  while (done.empty()) {
    backend.wait();
    backend.reap(done);
  }
  REQUIRE(done.size() == 1);
  REQUIRE(done[0] == &request);
  return request.error;
}

BackendRequest transfer(Kind kind, u64 offset, std::span<std::byte> bytes, bool durable = false) {
  BackendRequest request;
  request.kind = kind;
  request.offset = offset;
  request.length = bytes.size();
  request.durable = durable;
  request.parts = {{bytes.data(), bytes.size()}};
  return request;
}

BackendRequest range(Kind kind, u64 offset, u64 length, bool may_discard = false) {
  BackendRequest request;
  request.kind = kind;
  request.offset = offset;
  request.length = length;
  request.may_discard = may_discard;
  return request;
}

std::string open_error(const std::string& path, u32 block_size = 512) {
  auto image = FileImage::open(path, false, block_size);
  REQUIRE_FALSE(image.has_value());
  return image.error();
}

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A file behind io_uring and behind threads: what is written is read, holes are zeros") {
  for (const bool threads : {false, true}) {
    INFO("threads " << threads);
    TempFile file(4 << 20);
    auto backend = open_backend(file.path(), threads);
    CHECK(backend->size() == 4 << 20);
    CHECK(backend->volatile_cache());
    AlignedBuffer memory;
    const auto bytes = memory.acquire(64 << 10);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251);
    const std::vector<std::byte> wanted(bytes.begin(), bytes.end());

    auto write = transfer(Kind::write, 1 << 20, bytes, true);
    CHECK(run(*backend, write) == 0);
    auto flush = range(Kind::flush, 0, 0);
    CHECK(run(*backend, flush) == 0);
    std::fill(bytes.begin(), bytes.end(), std::byte{0xee});
    auto read = transfer(Kind::read, 1 << 20, bytes);
    CHECK(run(*backend, read) == 0);
    CHECK(std::equal(bytes.begin(), bytes.end(), wanted.begin()));
    CHECK(backend->allocated() >= 64 << 10);

    auto zeroes = range(Kind::write_zeroes, (1 << 20) + 512, 1024);
    CHECK(run(*backend, zeroes) == 0);
    auto punch = range(Kind::write_zeroes, (1 << 20) + 8192, 8192, true);
    CHECK(run(*backend, punch) == 0);
    auto discard = range(Kind::discard, (1 << 20) + 32768, 16384);
    CHECK(run(*backend, discard) == 0);
    auto again = transfer(Kind::read, 1 << 20, bytes);
    CHECK(run(*backend, again) == 0);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const bool zero =
          (i >= 512 && i < 1536) || (i >= 8192 && i < 16384) || (i >= 32768 && i < 49152);
      if (bytes[i] != (zero ? std::byte{0} : wanted[i])) {
        FAIL("byte " << i);
      }
    }
  }
}

TEST_CASE("Many requests at once all finish, and poll_fd says when") {
  for (const bool threads : {false, true}) {
    TempFile file(4 << 20);
    auto backend = open_backend(file.path(), threads);
    AlignedBuffer memory;
    const auto bytes = memory.acquire(1 << 20);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i / 512);
    std::vector<BackendRequest> requests(2048);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i] = transfer(Kind::write, i * 512, bytes.subspan(i * 512, 512));
      backend->submit(requests[i]);
    }
    backend->kick();
    std::vector<BackendRequest*> done;
    while (done.size() < requests.size()) {
      pollfd fd{backend->poll_fd(), POLLIN, 0};
      REQUIRE(poll(&fd, 1, 10000) == 1);
      backend->reap(done);
    }
    for (const BackendRequest* request : done) CHECK(request->error == 0);
  }
}

TEST_CASE("A file that became shorter, or is read-only, is an error and not a hang") {
  for (const bool threads : {false, true}) {
    TempFile file(1 << 20);
    AlignedBuffer memory;
    const auto bytes = memory.acquire(4096);
    std::fill(bytes.begin(), bytes.end(), std::byte{1});
    {
      auto backend = open_backend(file.path(), threads);
      REQUIRE(truncate(file.path().c_str(), 8192) == 0);
      auto read = transfer(Kind::read, 64 << 10, bytes);
      CHECK(run(*backend, read) == EIO);
      REQUIRE(truncate(file.path().c_str(), 1 << 20) == 0);
    }
    auto backend = open_backend(file.path(), threads, true);
    auto write = transfer(Kind::write, 0, bytes);
    CHECK(run(*backend, write) == EBADF);
    auto read = transfer(Kind::read, 0, bytes);
    CHECK(run(*backend, read) == 0);
  }
}

TEST_CASE("A short transfer goes on where it stopped; zeros are written where no call makes them") {
  std::array<std::byte, 64> a{};
  std::array<std::byte, 64> b{};
  BackendRequest request;
  request.kind = Kind::write;
  request.offset = 1000;
  request.length = 128;
  request.parts = {{a.data(), 64}, {b.data(), 64}};
  CHECK(next_step(request).offset == 1000);
  CHECK_FALSE(take_result(request, 70));
  const FileStep rest = next_step(request);
  CHECK(rest.offset == 1070);
  CHECK(rest.count == 1);
  CHECK(rest.parts[0].iov_base == b.data() + 6);
  CHECK(rest.parts[0].iov_len == 58);
  CHECK_FALSE(take_result(request, -EAGAIN));
  CHECK(take_result(request, 58));
  CHECK(request.error == 0);

  BackendRequest zeroes = range(Kind::write_zeroes, 4096, 100'000);
  CHECK_FALSE(take_result(zeroes, -EOPNOTSUPP));
  CHECK_FALSE(take_result(zeroes, -EOPNOTSUPP));
  u64 written = 0;
  for (bool done = false; !done;) {
    const FileStep step = next_step(zeroes);
    REQUIRE(step.call == FileStep::Call::writev);
    CHECK(step.offset == 4096 + written);
    written += step.parts[0].iov_len;
    done = take_result(zeroes, static_cast<long>(step.parts[0].iov_len));
  }
  CHECK(written == 100'000);
  // A discard that cannot be made is no error; one that fails is.
  BackendRequest discard = range(Kind::discard, 0, 4096);
  CHECK(take_result(discard, -EOPNOTSUPP));
  CHECK(discard.error == 0);
  CHECK(take_result(discard, -EIO));
  CHECK(discard.error == EIO);
  // For ever EAGAIN ends too.
  BackendRequest flush = range(Kind::flush, 0, 0);
  int tries = 0;
  while (!take_result(flush, -EAGAIN)) REQUIRE(++tries < 1000);
  CHECK(flush.error == EIO);
}

TEST_CASE(
    "NVMe 1.4 §6.15.1 a durable write is RWF_DSYNC, others are not; deallocating zeros punch") {
  BackendRequest request = range(Kind::write, 0, 512);
  CHECK(next_step(request).flags == 0);
  request.durable = true;
  CHECK(next_step(request).flags == RWF_DSYNC);
  request = range(Kind::write_zeroes, 0, 512);
  CHECK(next_step(request).flags == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE));
  request = range(Kind::write_zeroes, 0, 512, true);
  CHECK(next_step(request).flags == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE));
}

TEST_CASE("An image is served once; read-only servers may share it") {
  TempFile file(1 << 20);
  {
    auto first = FileImage::open(file.path(), false, 512);
    REQUIRE(first.has_value());
    CHECK(mentions(open_error(file.path()), "in use"));
    CHECK_FALSE(FileImage::open(file.path(), true, 512).has_value());
  }
  auto reader = FileImage::open(file.path(), true, 512);
  REQUIRE(reader.has_value());
  CHECK(FileImage::open(file.path(), true, 512).has_value());
  CHECK(mentions(open_error(file.path()), "in use"));
}

TEST_CASE("An image that cannot be served is named, with the remedy") {
  CHECK(mentions(open_error("/nonexistent/x.img"), "'/nonexistent/x.img' does not exist"));
  CHECK(mentions(open_error("/nonexistent/x.img"), "truncate -s"));
  CHECK(mentions(open_error("/tmp"), "is a directory"));
  CHECK(mentions(open_error("/dev/null"), "neither a regular file nor a block device"));
  TempFile empty(0);
  CHECK(mentions(open_error(empty.path()), "is empty"));
  TempFile odd(1000);
  CHECK(mentions(open_error(odd.path()), "truncate -s 1024"));
  TempFile half(4096 + 512);
  CHECK(mentions(open_error(half.path(), 4096), "--block-size 512"));
}

TEST_CASE("A controller on a file: fio's kind of traffic, and Format NVM to 4096 and back") {
  for (const bool threads : {false, true}) {
    TempFile file(4 << 20);
    Namespace ns;
    ns.backend = open_backend(file.path(), threads);
    Driver guest(one(std::move(ns)));
    guest.enable();
    REQUIRE(guest.create_pair(1, 64) == Status::success);
    const auto wait = [&](u16 queue, std::size_t count) {
      std::vector<Completion> all;
      while (all.size() < count) {
        guest.controller.turn();
        for (const Completion& entry : guest.poll(queue)) all.push_back(entry);
      }
      for (const Completion& entry : all) CHECK(Driver::answer(entry).status == Status::success);
    };
    const auto bytes = guest.data(1 << 20);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i / 512 + i);
    const std::vector<std::byte> wanted(bytes.begin(), bytes.end());
    for (u32 round = 0; round < 2; ++round) {
      for (u32 i = 0; i < 32; ++i) {
        Command command = Driver::io(round == 0 ? IoOpcode::write : IoOpcode::read, 1, i * 8, 8);
        // Every fourth buffer is not aligned as direct I/O wants it.
        command.pointer1 = kDataAt + i * 4096 + (i % 4 == 0 ? 4 : 0);
        command.pointer2 = kDataAt + (i + 1) * 4096;
        if (i % 4 == 0) command.dw12 = 6;
        guest.push(1, command);
      }
      guest.ring(1);
      wait(1, 32);
      if (round == 0) std::memset(bytes.data(), 0, 32 * 4096);
    }
    for (u32 i = 0; i < 32; ++i) {
      const u64 offset = i * 4096 + (i % 4 == 0 ? 4 : 0);
      const u64 length = i % 4 == 0 ? 3584 : 4096;
      CHECK(std::memcmp(bytes.data() + offset, wanted.data() + offset, length) == 0);
    }
    for (const u32 format : {1u, 1u << 9}) {
      Command command = Driver::admin(AdminOpcode::format_nvm);
      command.nsid = 1;
      command.dw10 = format;
      guest.push(0, command);
      guest.ring(0);
      wait(0, 1);
      CHECK(guest.controller.namespaces()[0].block_size() == (format == 1 ? 4096 : 512));
      guest.push(1, Driver::io(IoOpcode::read, 1, 0, 1));
      guest.ring(1);
      wait(1, 1);
      CHECK(guest.data(512)[0] == std::byte{0});
    }
    CHECK(guest.controller.flush_all());
  }
}

}  // namespace outboard::nvme::test
