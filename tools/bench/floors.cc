#include "tools/bench/floors.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "tools/bench/access_orders.h"
#include "vfio_user/wire.h"

namespace outboard::bench {
namespace {

using vfio_user::Error;
using vfio_user::Result;
using vfio_user::UniqueFd;
namespace wire = vfio_user::wire;

constexpr std::size_t kRequest = sizeof(wire::Header) + sizeof(wire::RegionAccess);
constexpr std::size_t kWithData = kRequest + 4;  // a reply to a read, a write
constexpr std::size_t kPage = 4096;
constexpr std::uint32_t kMaxDepth = 32;
constexpr std::uint64_t kPatience = 10'000'000'000;  // ns

tl::unexpected<Error> fail(int code, const char* what) {
  return tl::unexpected(
      Error{Error::Kind::system, code, std::string(what) + ": " + std::strerror(code)});
}

// Each sample is one call of `work`; between two lie `gap_us`.
template <class Work>
Times timed(std::uint32_t samples, std::uint32_t gap_us, Work&& work) {
  Times times;
  times.reserve(samples);
  for (std::uint32_t i = 0; i < samples; ++i) {
    const std::uint64_t begin = now_ns();
    work();
    const std::uint64_t end = now_ns();
    times.push_back(static_cast<double>(end - begin));
    while (now_ns() - end < std::uint64_t{gap_us} * 1000) {
    }
  }
  return times;
}

}  // namespace

struct Floors::Uring {
  io_uring ring{};
  std::vector<std::byte> buffers = std::vector<std::byte>(kMaxDepth * kPage);
  ~Uring() { ::io_uring_queue_exit(&ring); }
};

Floors::Floors() = default;

Floors::~Floors() {
  end_process(answerer_);
  end_process(listener_);
  end_process(waiter_);
}

Result<std::unique_ptr<Floors>> Floors::create(const Placement& placement, std::size_t disk) {
  std::unique_ptr<Floors> floors(new Floors());
  floors->word_ = SharedMemory(kPage);
  floors->disk_ = SharedMemory(disk);
  std::memset(floors->disk_.bytes().data(), 0x5a, disk);  // pages that are there
  floors->bell_.reset(::eventfd(0, EFD_CLOEXEC));
  std::array<int, 2> talk{};
  std::array<int, 2> listen{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk.data()) != 0) {
    return fail(errno, "socketpair");
  }
  floors->talk_.reset(talk[0]);
  const UniqueFd answers(talk[1]);
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, listen.data()) != 0) {
    return fail(errno, "socketpair");
  }
  floors->listen_.reset(listen[0]);
  const UniqueFd hears(listen[1]);

  const auto start = [&](auto&& work) {
    return fork_process([&] {
      if (bind_to(placement.server)) work();
    });
  };
  floors->answerer_ = start([&answers] {
    std::array<std::byte, kWithData> message{};
    while (::recv(answers.get(), message.data(), kRequest, 0) > 0) {
      if (::send(answers.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0) return;
    }
  });
  floors->listener_ = start([&hears] {
    std::array<std::byte, kWithData> message{};
    while (::recv(hears.get(), message.data(), message.size(), 0) > 0) {
    }
  });
  floors->waiter_ = start([&floors] {
    eventfd_t rings = 0;
    while (::eventfd_read(floors->bell_.get(), &rings) == 0) {
      std::atomic_ref<std::uint32_t>(floors->word_.at<std::uint32_t>(0)).fetch_add(1);
    }
  });
  if (floors->answerer_ < 0 || floors->listener_ < 0 || floors->waiter_ < 0) {
    return fail(errno, "fork");
  }
  auto uring = std::make_unique<Uring>();
  if (::io_uring_queue_init(kMaxDepth, &uring->ring, 0) == 0) floors->uring_ = std::move(uring);
  return floors;
}

void Floors::ask() {
  std::array<std::byte, kWithData> message{};
  ::send(talk_.get(), message.data(), kRequest, MSG_NOSIGNAL);
  ::recv(talk_.get(), message.data(), message.size(), 0);
}

void Floors::tell() {
  const std::array<std::byte, kWithData> message{};
  ::send(listen_.get(), message.data(), message.size(), MSG_NOSIGNAL);
}

Times Floors::ping_pong(std::uint32_t samples) {
  return timed(samples, 0, [this] { ask(); });
}

Times Floors::one_way(std::uint32_t samples, std::uint32_t gap_us) {
  return timed(samples, gap_us, [this] { tell(); });
}

Times Floors::signal(std::uint32_t samples, std::uint32_t gap_us) {
  return timed(samples, gap_us, [this] { ::eventfd_write(bell_.get(), 1); });
}

Times Floors::signal_to_wake(std::uint32_t samples, std::uint32_t gap_us) {
  const std::atomic_ref<std::uint32_t> count(word_.at<std::uint32_t>(0));
  return timed(samples, gap_us, [&] {
    const std::uint32_t before = count.load();
    ::eventfd_write(bell_.get(), 1);
    const std::uint64_t begin = now_ns();
    while (count.load() == before && now_ns() - begin < kPatience) {
    }
  });
}

std::size_t Floors::random_page() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return (random_ >> 11) % (disk_.bytes().size() / kPage) * kPage;
}

Times Floors::copy_reads(std::uint32_t samples, std::uint32_t inner) {
  std::array<std::byte, kPage> page;
  return timed(samples, 0, [&] {
    for (std::uint32_t i = 0; i < inner; ++i) {
      std::memcpy(page.data(), disk_.bytes().data() + random_page(), kPage);
      asm volatile("" ::"r"(page.data()) : "memory");  // the copy is made
    }
  });
}

Times Floors::uring_reads(std::uint32_t samples, std::uint32_t inner, std::uint32_t depth) {
  if (!uring_ || depth > kMaxDepth) return {};
  io_uring& ring = uring_->ring;
  const auto submit = [&](std::uint64_t id) {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring);
    ::io_uring_prep_read(entry, disk_.fd(), uring_->buffers.data() + id * kPage, kPage,
                         random_page());
    ::io_uring_sqe_set_data64(entry, id);
  };
  return timed(samples, 0, [&] {
    std::uint32_t started = 0;
    for (std::uint32_t done = 0; done < inner;) {
      for (; started < depth && started < inner; ++started) submit(started);
      ::io_uring_submit_and_wait(&ring, 1);
      io_uring_cqe* completion = nullptr;
      while (::io_uring_peek_cqe(&ring, &completion) == 0) {
        const std::uint64_t id = completion->user_data;
        ::io_uring_cqe_seen(&ring, completion);
        ++done;
        if (started == inner) continue;
        submit(id);
        ++started;
      }
    }
  });
}

}  // namespace outboard::bench
