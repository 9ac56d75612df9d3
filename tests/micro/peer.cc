#include "tests/micro/peer.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace outboard::micro {
namespace {

using vfio_user::wire::kRegionMappable;
using vfio_user::wire::kRegionReadable;
using vfio_user::wire::kRegionWritable;

constexpr std::uint32_t kConfigRegion = 7;
constexpr std::uint32_t kIntx = 0;
constexpr std::uint32_t kMsix = 2;
constexpr std::uint32_t kVectors = 4;
constexpr std::uint64_t kPage = 4096;

void put(std::span<std::byte> bytes, std::size_t at, std::uint32_t value, std::size_t size) {
  std::memcpy(bytes.data() + at, &value, size);
}

std::uint64_t value_of(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
  return value;
}

int copy_out(std::span<const std::byte> from, std::uint64_t offset, std::span<std::byte> data) {
  if (offset + data.size() > from.size()) return EINVAL;
  std::memcpy(data.data(), from.data() + offset, data.size());
  return 0;
}

int copy_in(std::span<std::byte> to, std::uint64_t offset, std::span<const std::byte> data) {
  if (offset + data.size() > to.size()) return EINVAL;
  std::memcpy(to.data() + offset, data.data(), data.size());
  return 0;
}

}  // namespace

Peer::Peer(PeerOptions options) : options_(options), scratch_(options.scratch) {
  socket_ = options_.socket;
  if (socket_.empty()) {
    char folder[] = "/tmp/outboard-micro-XXXXXX";
    if (::mkdtemp(folder) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = folder;
    socket_ = directory_ + "/device.sock";
  }

  const std::uint32_t access = kRegionReadable | kRegionWritable;
  shape_.regions[0] = {.flags = access, .size = kPage, .areas = {}};
  shape_.regions[1] = {.flags = access, .size = kPage, .areas = {}};
  shape_.regions[2] = {.flags = access, .size = plain_.size(), .areas = {}};
  shape_.regions[4] = {.flags = access, .size = ports_.size(), .areas = {}};
  shape_.regions[kConfigRegion] = {.flags = access, .size = config_.size(), .areas = {}};
  if (options_.mapped_bar2) {
    memory_.reset(::memfd_create("peer-bar2", MFD_CLOEXEC));
    if (::ftruncate(memory_.get(), static_cast<off_t>(plain_.size())) != 0) {
      throw std::runtime_error("ftruncate");
    }
    void* at = ::mmap(nullptr, plain_.size(), PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
    bar2_ = {static_cast<std::byte*>(at), plain_.size()};
    shape_.regions[2].flags |= kRegionMappable;
    shape_.regions[2].fd = memory_.get();
    if (options_.one_page_only) shape_.regions[2].areas = {{kPage, kPage}};
  }
  if (options_.ioeventfd) bell_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  using namespace vfio_user::wire;
  shape_.irqs[kIntx] = {kIrqEventfd | kIrqMaskable | kIrqAutomasked, 1};
  shape_.irqs[kMsix] = {kIrqEventfd | kIrqNoResize, kVectors};
  shape_.irqs[kIrqErr] = {kIrqEventfd | kIrqNoResize, 1};
  shape_.irqs[kIrqReq] = {kIrqEventfd | kIrqNoResize, 1};
  make_config();

  auto server = vfio_user::Server::listen(socket_, *this);
  if (!server) throw std::runtime_error(server.error().message);
  server_ = std::move(*server);
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { run(); });
}

Peer::~Peer() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof(one));
  thread_.join();
  server_.reset();
  if (!bar2_.empty()) ::munmap(bar2_.data(), bar2_.size());
  if (!directory_.empty()) ::rmdir(directory_.c_str());
}

void Peer::run() {
  for (;;) {
    pollfd fds[2] = {{server_->poll_fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if ((fds[1].revents & POLLIN) != 0) return;
    if (auto done = server_->process(); !done) return;
  }
}

void Peer::make_config() {
  put(config_, 0x00, 0x1b36, 2);  // vendor
  put(config_, 0x02, 0x0fed, 2);  // device
  put(config_, 0x06, 0x0010, 2);  // status: capability list
  put(config_, 0x08, 0xff0000 << 8, 4);
  put(config_, 0x10, 0x0, 4);   // BAR0: 32-bit memory
  put(config_, 0x14, 0x0, 4);   // BAR1: 32-bit memory
  put(config_, 0x18, 0xc, 4);   // BAR2: 64-bit prefetchable
  put(config_, 0x20, 0x1, 4);   // BAR4: I/O
  put(config_, 0x34, 0x40, 1);  // first capability
  put(config_, 0x3d, 1, 1);     // INTA
  put(config_, 0x40, 0x11, 1);  // MSI-X
  put(config_, 0x41, 0, 1);
  put(config_, 0x42, kVectors - 1, 2);
  put(config_, 0x44, 0x000 | 1, 4);  // table in BAR1
  put(config_, 0x48, 0x800 | 1, 4);  // PBA in BAR1
}

int Peer::region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) {
  ++accesses_;
  switch (region) {
    case 0: {
      const std::uint64_t value = read_register(offset);
      std::memset(data.data(), 0, data.size());
      std::memcpy(data.data(), &value, std::min(data.size(), sizeof(value)));
      return 0;
    }
    case 2:
      if (shortened_) return EIO;
      return copy_out(bar2_.empty() ? std::span<const std::byte>(plain_) : bar2_, offset, data);
    case 4:
      return copy_out(ports_, offset, data);
    case kConfigRegion:
      return copy_out(config_, offset, data);
    default:
      return EINVAL;
  }
}

int Peer::region_write(std::uint32_t region, std::uint64_t offset,
                       std::span<const std::byte> data) {
  ++writes_;
  ++accesses_;
  switch (region) {
    case 0:
      write_register(offset, value_of(data));
      return 0;
    case 2:
      if (shortened_) return EIO;
      return copy_in(bar2_.empty() ? std::span<std::byte>(plain_) : bar2_, offset, data);
    case 4:
      return copy_in(ports_, offset, data);
    case kConfigRegion:
      return 0;  // the client's own copy is what the guest sees
    default:
      return EINVAL;
  }
}

std::uint64_t Peer::read_register(std::uint64_t offset) {
  switch (offset) {
    case 0x00:
      return 0xc0ffee01;
    case 0x08:
      return scratch_;
    case 0x18:
      return intx_ ? 1 : 0;
    case 0x20:
      return unmasks_.load();
    case 0x30:
      return resets_.load();
    case 0x40: {
      eventfd_t rings = 0;
      if (bell_ && ::eventfd_read(bell_.get(), &rings) == 0) rings_ += rings;
      return rings_;
    }
    case 0x48:
      return writes_;
    case 0x58:
      ++hangs_;
      wait_until_stopped(std::chrono::minutes(5));
      return 0;
    case 0x68:
      return fetched_;
    default:
      return 0;
  }
}

void Peer::write_register(std::uint64_t offset, std::uint64_t value) {
  switch (offset) {
    case 0x08:
      scratch_ = value;
      break;
    case 0x10:
      server_->trigger(kMsix, static_cast<std::uint32_t>(value));
      break;
    case 0x18:
      intx_ = value != 0;
      signal_intx();
      break;
    case 0x28: {
      const std::uint64_t mark = 0xd0d0d0d0'0000'0000U | writes_;
      server_->dma_write(value, std::as_bytes(std::span(&mark, 1)));
      break;
    }
    case 0x38:
      server_->trigger(static_cast<std::uint32_t>(value), 0);
      break;
    case 0x50:
      bell_offered_ = value != 0;
      break;
    case 0x60:
      for (std::uint64_t i = 0; i < value; ++i) server_->trigger(kMsix, 1);
      break;
    case 0x68:
      fetched_ = 0;
      server_->dma_read(value, std::as_writable_bytes(std::span(&fetched_, 1)));
      break;
    default:
      break;
  }
}

std::vector<vfio_user::ServerIoFd> Peer::io_fds(std::uint32_t region) {
  if (region != 0 || !bell_ || !bell_offered_) return {};
  return {{0x40, 4, bell_.get()}};
}

void Peer::irq_unmasked(std::uint32_t index, std::uint32_t, std::uint32_t) {
  if (index != kIntx) return;
  ++unmasks_;
  intx_signalled_ = false;
  signal_intx();
}

// A level: signalled once, and again only when the client has asked to look once more.
void Peer::signal_intx() {
  if (!intx_ || intx_signalled_) return;
  intx_signalled_ = server_->trigger(kIntx, 0) == 0;
}

void Peer::wait_until_stopped(std::chrono::milliseconds at_most) const {
  pollfd stop{stop_.get(), POLLIN, 0};
  ::poll(&stop, 1, static_cast<int>(at_most.count()));
}

void Peer::dma_mapped(const vfio_user::ServerWindow& window) {
  const auto host = window.host;
  const bool writable = host.empty()
                            ? window.writable
                            : ::mprotect(host.data(), host.size(), PROT_READ | PROT_WRITE) == 0;
  const std::lock_guard lock(mutex_);
  windows_.push_back({window.address, window.size, !host.empty(), writable});
}

std::vector<Peer::Window> Peer::windows() const {
  const std::lock_guard lock(mutex_);
  return windows_;
}

void Peer::shorten_bar2(std::uint64_t size) {
  shortened_ = true;
  if (::ftruncate(memory_.get(), static_cast<off_t>(size)) != 0) {
    throw std::runtime_error("ftruncate");
  }
}

void Peer::flap_bar2(const std::atomic<bool>& stop) {
  shortened_ = true;
  while (!stop.load()) {
    for (const off_t size : {off_t{0}, static_cast<off_t>(plain_.size())}) {
      if (::ftruncate(memory_.get(), size) != 0) throw std::runtime_error("ftruncate");
    }
  }
}

void Peer::reset() {
  if (options_.reset_takes.count() != 0) wait_until_stopped(options_.reset_takes);
  ++resets_;
  scratch_ = 0;
  intx_ = false;
  intx_signalled_ = false;
}

}  // namespace outboard::micro
