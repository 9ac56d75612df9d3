// A server that behaves, except where a test says otherwise.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/protocol/peer.h"
#include "vfio_user/client.h"
#include "vfio_user/sparse_area.h"

namespace outboard::protocol_test {

using vfio_user::Client;
using vfio_user::ClientOptions;
using vfio_user::DmaWindow;
using vfio_user::Error;
using vfio_user::Result;
using vfio_user::SparseArea;
using namespace std::chrono_literals;

struct ScriptedRegion {
  std::uint32_t flags = 0;
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
  Bytes tail;            // behind the structure: capabilities, at cap_offset 32
  std::vector<int> fds;  // with the reply that has the tail
};

struct ScriptedIrq {
  std::uint32_t flags = 0;
  std::uint32_t count = 0;
};

// What the server tells and does. Changed only while no client talks to it.
struct Script {
  using Handler = std::function<void(Peer&, Incoming&)>;

  // Inside {"capabilities":{…}}.
  std::string capabilities = R"("max_msg_fds":8,"max_data_xfer_size":1048576)";
  bool slow = false;  // every reply byte by byte
  bool twin = false;  // grant a twin socket to a client that asks
  wire::DeviceInfo info{16, wire::kDeviceResettable | wire::kDevicePci, 9, 5};
  std::array<ScriptedRegion, 9> regions;
  std::array<ScriptedIrq, 5> irqs;
  std::map<Command, Handler> on;  // instead of what it would do
  Handler on_reply;               // with each reply of the client; it drops them otherwise
  // After each single write to a region, also of a WRITE_MULTI, that behave() has done.
  std::function<void(const wire::RegionAccess&, std::span<const std::byte>)> on_write;
  bool keep_log = true;
  // REGION_READ of the configuration space, as attach() sends it, goes to the handler too.
  bool handle_config_reads = false;
  // The first DEVICE_GET_REGION_IO_FDS, as attach() sends it, goes to the handler too; else nothing
  // is offered there.
  bool handle_first_io_fds = false;

  Script();  // BAR0 of 4 KiB, 256 bytes of configuration space, INTx, 8 vectors of MSI-X
};

// A message as it was received, without its descriptors.
struct Logged {
  wire::Header header{};
  Bytes payload;
  std::size_t fds = 0;
  std::size_t stray_fds = 0;
  bool whole = false;

  [[nodiscard]] Command command() const { return static_cast<Command>(header.command); }
  template <class T>
  [[nodiscard]] T as() const {
    return struct_at<T>(payload);
  }
};

// Runs a Script in a thread at one end of a socket pair; the client takes the other end once.
class ScriptedServer final {
 public:
  explicit ScriptedServer(Script script);
  ~ScriptedServer();  // stop()
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  // A client of this server, VERSION done.
  Result<std::unique_ptr<Client>> connect(ClientOptions options);
  std::unique_ptr<vfio_user::Transport> client_end();

  // Closes the socket and ends the thread.
  void stop();

  [[nodiscard]] std::vector<Logged> log() const;
  [[nodiscard]] std::vector<Logged> log_of(Command command) const;
  [[nodiscard]] std::size_t count_of(Command command) const { return log_of(command).size(); }
  // Waits until `count` messages of this command have come; false after 10 s.
  [[nodiscard]] bool wait_for(Command command, std::size_t count) const;

  // The server's own end, for requests of its own from another thread (whole messages do not mix).
  Peer& peer() { return peer_; }
  // Its end of the twin socket, once VERSION is done.
  Peer& twin() { return *twin_; }
  // What the regions hold; handlers use it from the server's thread.
  std::map<std::uint32_t, Bytes>& memory() { return memory_; }

  // What the server does when no handler is set; a handler may fall back to it.
  void behave(Peer& peer, Incoming& message);

 private:
  void run();
  void answer_version(Peer& peer, const Incoming& message);
  void answer_region_info(Peer& peer, const Incoming& message);
  void write(const wire::RegionAccess& access, std::span<const std::byte> data);

  Script script_;
  UniqueFd client_end_;
  Peer peer_;
  std::optional<Peer> twin_;
  std::map<std::uint32_t, Bytes> memory_;
  mutable std::mutex mutex_;
  std::vector<Logged> log_;  // guarded by mutex_
  std::thread thread_;
};

// The payload of a sparse-mmap capability, to be a ScriptedRegion's tail.
Bytes sparse_tail(const std::vector<SparseArea>& areas);
// A memfd of `size` bytes.
UniqueFd memory_file(std::size_t size);

// The calls of Client that send exactly one kind of message, each as a device that was attached
// would see it.
struct Call {
  Command command;
  std::function<Result<void>(Client&)> run;
};
std::vector<Call> calls_after_attach();

// A client that is attached with these windows; the test fails if that does.
std::unique_ptr<Client> attached(ScriptedServer& server, ClientOptions options,
                                 std::span<const DmaWindow> windows = {});

// Options with deadlines that a test can wait for.
ClientOptions quick_options(std::chrono::milliseconds deadline = 2000ms);

// Checks that a test leaves no descriptor and no thread behind. First in a test case.
class Steady final {
 public:
  Steady();
  ~Steady();
  Steady(const Steady&) = delete;
  Steady& operator=(const Steady&) = delete;

 private:
  std::size_t fds_ = 0;
  std::size_t threads_ = 0;
};
std::size_t open_fds();
std::size_t running_threads();

// Calls service() whenever the client's poll_fd() asks for it: an event loop.
class EventLoop final {
 public:
  explicit EventLoop(Client& client);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  [[nodiscard]] std::uint64_t wake_ups() const { return wake_ups_.load(); }

 private:
  Client& client_;
  UniqueFd stop_;
  std::atomic<std::uint64_t> wake_ups_{0};
  std::thread thread_;
};

// Host memory to lend as a window.
struct Memory {
  explicit Memory(std::uint64_t address, std::size_t size)
      : bytes(size), window{address, size, -1, 0, true, true, bytes} {}
  Bytes bytes;
  DmaWindow window;
};

}  // namespace outboard::protocol_test
