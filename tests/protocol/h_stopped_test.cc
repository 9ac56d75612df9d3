// CONFORMANCE H: a server's process that is stopped for a while.
#include <algorithm>
#include <cstdlib>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/server.h"
#include "vfio_user/socket_transport.h"

namespace outboard::protocol_test {
namespace {

using Clock = std::chrono::steady_clock;

// A device in a process of its own, which answers every read with the offset that was asked for.
class OffsetDevice final : public vfio_user::DeviceModel {
 public:
  OffsetDevice() {
    shape_.regions[0] = {.flags = wire::kRegionReadable | wire::kRegionWritable, .size = 4096};
    shape_.regions[wire::kRegionConfig] = {.flags = wire::kRegionReadable, .size = 256};
  }
  const vfio_user::DeviceShape& shape() const override { return shape_; }
  int region_read(std::uint32_t, std::uint64_t offset, std::span<std::byte> data) override {
    std::fill(data.begin(), data.end(), static_cast<std::byte>(offset));
    return 0;
  }
  int region_write(std::uint32_t, std::uint64_t, std::span<const std::byte>) override { return 0; }
  void reset() override {}

 private:
  vfio_user::DeviceShape shape_;
};

// Starts it; the client's end of its socket is left in `end`.
pid_t start_device(UniqueFd& end) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    OffsetDevice device;
    auto server = vfio_user::Server::attach(UniqueFd(ends[1]), device);
    pollfd ready{server ? (*server)->poll_fd() : -1, POLLIN, 0};
    while (server && ::getppid() != 1 && ::poll(&ready, 1, 1000) >= 0) {
      if (!(*server)->process()) break;
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  end.reset(ends[0]);
  return child;
}

TEST_CASE(
    "C94 SIGSTOP of a server under load, then SIGCONT: nobody else waits, and nothing is lost") {
  const Steady steady;
  UniqueFd stopped_end;
  UniqueFd other_end;
  const pid_t stopped = start_device(stopped_end);
  const pid_t other = start_device(other_end);
  {
    const auto client_of = [](UniqueFd end) {
      auto transport = vfio_user::SocketTransport::adopt(std::move(end));
      REQUIRE(transport);
      auto client = Client::adopt(std::move(*transport), quick_options(60s));
      REQUIRE(client);
      REQUIRE((*client)->attach({}));
      return std::move(*client);
    };
    auto first = client_of(std::move(stopped_end));
    auto second = client_of(std::move(other_end));
    const auto right = [](Client& client, std::uint64_t offset) {
      std::array<std::byte, 4> data{};
      return client.region_read(0, offset, data).value_or(0) == 4 &&
             data[3] == static_cast<std::byte>(offset);
    };
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> done{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> vcpus;
    for (std::uint64_t i = 0; i < 4; ++i) {
      vcpus.emplace_back([&, i] {
        for (std::uint64_t n = i; !stop; n += 4) {
          wrong += right(*first, n % 256 * 4) ? 0 : 1;
          ++done;
        }
      });
    }
    while (done < 100) std::this_thread::yield();
    REQUIRE(::kill(stopped, SIGSTOP) == 0);
    int status = 0;
    REQUIRE(::waitpid(stopped, &status, WUNTRACED) == stopped);
    const auto pause = std::getenv("OUTBOARD_FULL") != nullptr ? 10000ms : 1000ms;
    const auto begin = Clock::now();
    auto worst = Clock::duration::zero();
    std::uint64_t reads = 0;
    while (Clock::now() - begin < pause) {
      const auto before = Clock::now();
      CHECK(right(*second, ++reads % 256 * 4));
      worst = std::max(worst, Clock::duration(Clock::now() - before));
    }
    const std::uint64_t at_stop = done;
    CHECK(reads > 20);
    CHECK(worst < pause);
    REQUIRE(::kill(stopped, SIGCONT) == 0);
    while (done < at_stop + 100) std::this_thread::yield();
    stop = true;
    for (auto& vcpu : vcpus) vcpu.join();
    CHECK(wrong == 0);
    CHECK(first->alive());
    CHECK(first->counters().timeouts == 0);
  }
  for (const pid_t child : {stopped, other}) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
}

}  // namespace
}  // namespace outboard::protocol_test
