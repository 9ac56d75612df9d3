#include "tests/protocol/scripted_server.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "vfio_user/socket_transport.h"

namespace outboard::protocol_test {

Script::Script() {
  constexpr std::uint32_t kReadWrite = wire::kRegionReadable | wire::kRegionWritable;
  regions[0] = {kReadWrite, 4096, 0, {}, {}};
  regions[wire::kRegionConfig] = {kReadWrite, 256, 0, {}, {}};
  irqs[wire::kIrqIntx] = {wire::kIrqEventfd, 1};
  irqs[wire::kIrqMsix] = {wire::kIrqEventfd | wire::kIrqNoResize, 8};
}

ScriptedServer::ScriptedServer(Script script) : script_(std::move(script)), peer_(UniqueFd()) {
  int ends[2] = {-1, -1};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  client_end_ = UniqueFd(ends[0]);
  peer_ = Peer(UniqueFd(ends[1]));
  if (script_.slow) peer_.be_slow();
  for (std::uint32_t i = 0; i < script_.regions.size(); ++i) {
    const auto size = std::min<std::uint64_t>(script_.regions[i].size, 1 << 20);
    memory_[i].resize(static_cast<std::size_t>(size));
  }
  thread_ = std::thread([this] { run(); });
}

ScriptedServer::~ScriptedServer() {
  stop();
}

void ScriptedServer::stop() {
  peer_.shut_down(SHUT_RDWR);
  if (thread_.joinable()) thread_.join();
  twin_.reset();
  peer_.close();
}

std::unique_ptr<vfio_user::Transport> ScriptedServer::client_end() {
  auto transport = vfio_user::SocketTransport::adopt(std::move(client_end_));
  REQUIRE(transport.has_value());
  return std::move(*transport);
}

Result<std::unique_ptr<Client>> ScriptedServer::connect(ClientOptions options) {
  return Client::adopt(client_end(), std::move(options));
}

void ScriptedServer::run() {
  bool io_fds_asked = false;
  while (auto message = peer_.next(60s)) {
    if (script_.keep_log) {
      const std::lock_guard lock(mutex_);
      log_.push_back({message->header, message->payload, message->fds.size(), message->stray_fds,
                      message->whole});
    }
    if (message->is_reply() && script_.on_reply) {
      script_.on_reply(peer_, *message);
      continue;
    }
    const auto handler = script_.on.find(message->command());
    const bool config_read = message->command() == Command::region_read &&
                             message->as<wire::RegionAccess>().region == wire::kRegionConfig;
    const bool io_fds_of_attach = message->command() == Command::device_get_region_io_fds &&
                                  !std::exchange(io_fds_asked, true);
    if (handler != script_.on.end() && !message->is_reply() &&
        (!config_read || script_.handle_config_reads) &&
        (!io_fds_of_attach || script_.handle_first_io_fds)) {
      handler->second(peer_, *message);
    } else {
      behave(peer_, *message);
    }
  }
}

void ScriptedServer::behave(Peer& peer, Incoming& message) {
  if (message.is_reply()) return;  // logged: tests look there
  const wire::Header& header = message.header;
  const bool silent = (header.flags & wire::kNoReply) != 0;
  switch (message.command()) {
    case Command::version:
      answer_version(peer, message);
      return;
    case Command::device_get_info:
      peer.reply(header, bytes_of(script_.info));
      return;
    case Command::device_get_region_info:
      answer_region_info(peer, message);
      return;
    case Command::device_get_irq_info: {
      auto info = message.as<wire::IrqInfo>();
      if (info.index >= script_.irqs.size()) {
        peer.error(header, EINVAL);
        return;
      }
      info.flags = script_.irqs[info.index].flags;
      info.count = script_.irqs[info.index].count;
      peer.reply(header, bytes_of(info));
      return;
    }
    case Command::region_read: {
      const auto access = message.as<wire::RegionAccess>();
      const Bytes& memory = memory_[access.region];
      if (access.offset + access.count > memory.size()) {
        peer.error(header, EINVAL);
        return;
      }
      const auto first = memory.begin() + static_cast<std::ptrdiff_t>(access.offset);
      peer.reply(header, bytes_of(access) + Bytes(first, first + access.count));
      return;
    }
    case Command::region_write: {
      const auto access = message.as<wire::RegionAccess>();
      write(access, std::span(message.payload).subspan(sizeof access));
      if (!silent) peer.reply(header, bytes_of(access));
      return;
    }
    case Command::region_write_multi: {
      const auto multi = message.as<wire::WriteMulti>();
      for (std::uint64_t i = 0; i < multi.count; ++i) {
        const auto entry = struct_at<wire::WriteMultiEntry>(
            message.payload, sizeof multi + i * sizeof(wire::WriteMultiEntry));
        write({entry.offset, entry.region, entry.count},
              std::as_bytes(std::span(entry.data)).first(entry.count));
      }
      if (!silent) peer.reply(header, bytes_of(multi));
      return;
    }
    case Command::dma_unmap:
      peer.reply(header, message.payload);
      return;
    case Command::device_get_region_io_fds:
      peer.reply(header,
                 bytes_of(wire::RegionIoFds{16, 0, message.as<wire::RegionIoFds>().index, 0}));
      return;
    case Command::dma_map:
    case Command::device_set_irqs:
    case Command::device_reset:
      peer.reply(header);
      return;
    default:
      peer.error(header, EINVAL);
  }
}

void ScriptedServer::write(const wire::RegionAccess& access, std::span<const std::byte> data) {
  Bytes& memory = memory_[access.region];
  if (access.offset + data.size() > memory.size()) return;
  std::copy(data.begin(), data.end(), memory.begin() + static_cast<std::ptrdiff_t>(access.offset));
  if (script_.on_write) script_.on_write(access, data);
}

void ScriptedServer::answer_version(Peer& peer, const Incoming& message) {
  std::string json = script_.capabilities;
  const std::string asked(reinterpret_cast<const char*>(message.payload.data()),
                          message.payload.size());
  std::vector<int> fds;
  UniqueFd other;
  if (script_.twin && asked.find("twin_socket") != std::string::npos) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
    twin_.emplace(UniqueFd(ends[1]));
    other = UniqueFd(ends[0]);
    fds.push_back(ends[0]);
    json +=
        (json.empty() ? "" : ",") + std::string(R"("twin_socket":{"supported":true,"fd_index":0})");
  }
  peer.reply(message.header,
             bytes_of(wire::Version{0, 2}) + text_bytes(R"({"capabilities":{)" + json + "}}"), fds);
}

void ScriptedServer::answer_region_info(Peer& peer, const Incoming& message) {
  auto info = message.as<wire::RegionInfo>();
  if (info.index >= script_.regions.size()) {
    peer.error(message.header, EINVAL);
    return;
  }
  const ScriptedRegion& region = script_.regions[info.index];
  const auto needed = static_cast<std::uint32_t>(sizeof info + region.tail.size());
  const bool room = info.argsz >= needed;
  info.argsz = needed;
  info.flags = region.flags;
  info.size = region.size;
  info.offset = region.offset;
  info.cap_offset = 0;
  if (!region.tail.empty() && room) {
    info.flags |= wire::kRegionCapabilities;
    info.cap_offset = sizeof info;
  }
  peer.reply(message.header, bytes_of(info) + (room ? region.tail : Bytes()),
             room ? std::span(region.fds) : std::span<const int>());
}

std::vector<Logged> ScriptedServer::log() const {
  const std::lock_guard lock(mutex_);
  return log_;
}

std::vector<Logged> ScriptedServer::log_of(Command command) const {
  std::vector<Logged> found = log();
  std::erase_if(found, [&](const Logged& entry) { return entry.command() != command; });
  return found;
}

bool ScriptedServer::wait_for(Command command, std::size_t count) const {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (std::chrono::steady_clock::now() < deadline) {
    if (count_of(command) >= count) return true;
    std::this_thread::yield();
  }
  return false;
}

Bytes sparse_tail(const std::vector<SparseArea>& areas) {
  Bytes tail = bytes_of(wire::CapabilityHeader{wire::kCapSparseMmap, 1, 0}) +
               bytes_of(wire::SparseMmap{static_cast<std::uint32_t>(areas.size()), 0});
  for (const SparseArea& area : areas) {
    tail = std::move(tail) + bytes_of(wire::SparseMmapArea{area.offset, area.size});
  }
  return tail;
}

UniqueFd memory_file(std::size_t size) {
  UniqueFd fd(::memfd_create("protocol_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(fd);
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(size)) == 0);
  return fd;
}

std::vector<Call> calls_after_attach() {
  const auto plain = [](auto result) -> Result<void> {
    if (!result) return tl::make_unexpected(result.error());
    return {};
  };
  static Bytes host(4096);
  return {
      {Command::dma_map,
       [](Client& c) {
         return c.dma_map({0x10000, 4096, -1, 0, true, true, host});
       }},
      {Command::dma_unmap, [](Client& c) { return c.dma_unmap(0, 4096); }},
      {Command::device_get_region_io_fds, [plain](Client& c) { return plain(c.region_io_fds(0)); }},
      {Command::device_set_irqs, [](Client& c) { return c.mask_irqs(wire::kIrqMsix, 0, 1); }},
      {Command::region_read,
       [plain](Client& c) {
         std::array<std::byte, 4> data{};
         return plain(c.region_read(0, 0x10, data));
       }},
      {Command::region_write,
       [](Client& c) { return c.region_write(0, 0x10, std::array<std::byte, 4>{}); }},
      {Command::device_reset, [](Client& c) { return c.reset(); }},
  };
}

std::unique_ptr<Client> attached(ScriptedServer& server, ClientOptions options,
                                 std::span<const DmaWindow> windows) {
  auto client = server.connect(std::move(options));
  REQUIRE(client.has_value());
  auto device = (*client)->attach(windows);
  REQUIRE(device.has_value());
  return std::move(*client);
}

ClientOptions quick_options(std::chrono::milliseconds deadline) {
  ClientOptions options;
  options.name = "dut";
  options.timeouts = {deadline, deadline, deadline, deadline, deadline, deadline};
  return options;
}

std::size_t open_fds() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

std::size_t running_threads() {
  const std::filesystem::directory_iterator all("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

Steady::Steady() {
  // A sanitizer's own thread starts with the first of ours; and ours is in /proc for a moment after
  // it has been joined.
  static const bool primed = [] {
    pid_t thread = 0;
    std::thread([&] { thread = ::gettid(); }).join();
    const std::string entry = "/proc/self/task/" + std::to_string(thread);
    while (std::filesystem::exists(entry)) std::this_thread::yield();
    return true;
  }();
  static_cast<void>(primed);
  fds_ = open_fds();
  threads_ = running_threads();
}

Steady::~Steady() {
  CHECK(open_fds() == fds_);
  // A joined thread leaves /proc a moment after pthread_join has returned.
  const auto deadline = std::chrono::steady_clock::now() + 2s;
  while (running_threads() != threads_ && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  CHECK(running_threads() == threads_);
}

EventLoop::EventLoop(Client& client)
    : client_(client), stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  const int watched = client_.poll_fd();
  thread_ = std::thread([this, watched] {
    for (;;) {
      std::array<pollfd, 2> fds{};
      fds[0] = {watched, POLLIN, 0};
      fds[1] = {stop_.get(), POLLIN, 0};
      if (::poll(fds.data(), fds.size(), -1) < 0) continue;
      if (fds[1].revents != 0) return;
      ++wake_ups_;
      client_.service();
    }
  });
}

EventLoop::~EventLoop() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

}  // namespace outboard::protocol_test
