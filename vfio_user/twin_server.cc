#include "vfio_user/twin_server.h"

#include <utility>

#include <poll.h>
#include <pthread.h>
#include <signal.h>

namespace outboard::vfio_user {

TwinServer::TwinServer(std::unique_ptr<Transport> transport, const DmaServer& dma,
                       std::uint32_t max_message, MessageObserver* observer,
                       std::function<void(Error)> on_death)
    : transport_(std::move(transport)),
      dma_(dma),
      observer_(observer),
      on_death_(std::move(on_death)),
      reader_(max_message) {}

void TwinServer::start(std::function<void()> started) {
  // The thread inherits a full mask: signals are for the threads of the program.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, first = std::move(started)] {
    // By itself: another thread would have to write to a file in /proc for it.
    ::pthread_setname_np(::pthread_self(), "vfio-user-twin");
    if (first) first();
    run();
  });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TwinServer::~TwinServer() {
  stop();
  join();
}

void TwinServer::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  transport_->shutdown();
}

void TwinServer::join() {
  if (thread_.joinable()) thread_.join();
}

void TwinServer::run() {
  for (;;) {
    if (auto served = serve_one(); !served) {
      Error error = std::move(served.error());
      error.message = "twin socket: " + error.message;
      if (!stopping_.load(std::memory_order_relaxed)) on_death_(std::move(error));
      return;
    }
  }
}

Result<void> TwinServer::serve_one() {
  auto message = reader_.next(*transport_);
  if (!message) return tl::make_unexpected(std::move(message.error()));
  if (!*message) {
    auto ready = wait_for(transport_->fd(), POLLIN, kForever);
    if (!ready) return tl::make_unexpected(std::move(ready.error()));
    return {};
  }
  const wire::Header header = (*message)->header;
  AtomicCounters::count(counters_.bytes_in, header.command, header.size);
  if ((*message)->is_reply()) return {};  // nothing was asked here: a stray, and drained
  AtomicCounters::count(counters_.received, header.command);
  dma_.serve(**message, reply_, observer_);
  if (reply_.empty()) return {};
  AtomicCounters::count(counters_.bytes_out, header.command, reply_.size());
  const iovec part{reply_.data(), reply_.size()};
  auto sent = transport_->send({&part, 1}, {}, kForever);
  if (!sent) return tl::make_unexpected(std::move(sent.error()));
  return {};
}

void TwinServer::add_to(ClientCounters& counters) const {
  counters_.add_to(counters);
}

}  // namespace outboard::vfio_user
