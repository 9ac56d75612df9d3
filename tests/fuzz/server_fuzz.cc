// The server library against a client that sends anything: messages that are right, wrong in one
// field, cut short, out of order, or no messages at all; over a device that does DMA.
#include <algorithm>
#include <memory>
#include <vector>

#include "tests/fuzz/files.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/memory_transport.h"
#include "vfio_user/codec.h"
#include "vfio_user/server_session.h"

using namespace outboard;
using namespace outboard::vfio_user;
using fuzz::Input;
using fuzz::require;

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t kMostMessages = 128;

class Client final : public fuzz::MemoryTransport {
 public:
  explicit Client(Input& input) : input_(input) {
    if (input_.one_in(8)) set_at_once(1 + input_.below(64));
  }
  std::size_t messages() const { return messages_; }

 private:
  void sent(std::span<const std::byte> bytes, std::size_t) override {
    const auto header = read_struct<wire::Header>(bytes);
    require(header && header->size == bytes.size());
    // A DMA request of the server is remembered: its answer may come at any time.
    if ((header->flags & wire::kTypeMask) != wire::kTypeCommand) return;
    require(header->command == static_cast<std::uint16_t>(wire::Command::dma_read) ||
            header->command == static_cast<std::uint16_t>(wire::Command::dma_write));
    asked_ = *header;
    asked_access_ = *read_struct<wire::DmaAccess>(bytes.subspan(sizeof *header));
  }

  void wanted() override {
    if (input_.empty() || messages_++ >= kMostMessages) return hang_up();
    if (messages_ == 1 && !input_.one_in(16)) return version();
    const std::uint8_t kind = input_.byte();
    if (kind >= 0xf0) return push(input_.bytes(1 + input_.below(64)));  // no message
    if (kind >= 0xe0) return;                                           // nothing for now
    if (asked_.size != 0 && kind < 0x80) return answer_dma();
    command();
  }

  void put(wire::Header header, const Bytes& body, std::vector<UniqueFd> fds = {}) {
    header.size = static_cast<std::uint32_t>(sizeof header + body.size());
    if (input_.one_in(16)) header.size = static_cast<std::uint32_t>(input_.number());
    if (input_.one_in(16)) header.flags = static_cast<std::uint32_t>(input_.number());
    Bytes message;
    fuzz::append(message, header);
    fuzz::append(message, body);
    push(message, std::move(fds));
  }

  void version() {
    static constexpr std::string_view kTexts[] = {
        R"({"capabilities":{"max_msg_fds":8,"max_data_xfer_size":256}})",
        R"({"capabilities":{"twin_socket":{"supported":true}}})", "{}"};
    Bytes body;
    fuzz::append(body, wire::Version{0, input_.byte()});
    fuzz::append(body, std::as_bytes(std::span(input_.one_of(kTexts))));
    body.push_back(std::byte{0});
    put({1, 1, 0, 0, 0}, body);
  }

  void answer_dma() {
    wire::Header header = std::exchange(asked_, {});
    header.flags = wire::kTypeReply;
    Bytes body;
    if (input_.one_in(4)) {
      header.flags |= wire::kError;
      header.error = input_.byte();
    } else {
      fuzz::append(body, asked_access_);
      if (header.command == static_cast<std::uint16_t>(wire::Command::dma_read)) {
        body.resize(body.size() + std::min<std::uint64_t>(asked_access_.count, 0x10000));
      }
      change(body);
    }
    put(header, body);
  }

  // Mostly not at all, else one field, or the length.
  void change(Bytes& body) {
    const std::uint8_t how = input_.byte();
    if (how >= 0xe0) body.resize(input_.below(300));
    if (how < 0xc0 || body.empty()) return;
    const std::size_t at = input_.below(body.size());
    const std::uint64_t value = input_.number();
    std::memcpy(body.data() + at, &value, std::min(sizeof value, body.size() - at));
  }

  std::uint64_t address() { return input_.one_in(8) ? input_.number() : input_.below(8) * 0x4000; }
  std::uint64_t length() { return input_.one_in(8) ? input_.number() : input_.below(9) * 0x1000; }

  void command() {
    using wire::Command;
    static constexpr Command kCommands[] = {Command::region_write,
                                            Command::region_read,
                                            Command::dma_map,
                                            Command::dma_unmap,
                                            Command::device_set_irqs,
                                            Command::device_get_region_info,
                                            Command::device_get_info,
                                            Command::device_get_irq_info,
                                            Command::device_get_region_io_fds,
                                            Command::region_write_multi,
                                            Command::device_reset,
                                            Command::device_feature,
                                            Command::mig_data_read,
                                            Command::mig_data_write,
                                            Command::version,
                                            Command::dma_read,
                                            Command::dirty_pages};
    const Command command =
        input_.one_in(32) ? Command{input_.take<std::uint16_t>()} : input_.one_of(kCommands);
    Bytes body;
    std::vector<UniqueFd> fds;
    const auto small = [&] { return static_cast<std::uint32_t>(input_.below(10)); };
    const auto argsz = [&](std::size_t room) {
      return input_.one_in(8) ? static_cast<std::uint32_t>(input_.number())
                              : static_cast<std::uint32_t>(room);
    };
    switch (command) {
      case Command::dma_map: {
        wire::DmaMap map{argsz(sizeof map), input_.below(4) == 3 ? input_.byte() : 3u,
                         input_.one_in(4) ? length() : 0, address(), length()};
        fuzz::append(body, map);
        if (!input_.one_in(3)) {
          fds.push_back(fuzz::file(static_cast<std::uint32_t>(input_.below(fuzz::kFileKinds))));
        }
        break;
      }
      case Command::dma_unmap:
        fuzz::append(body,
                     wire::DmaUnmap{argsz(sizeof(wire::DmaUnmap)),
                                    input_.one_in(4) ? input_.byte() : 0u, address(), length()});
        if (input_.one_in(8)) fuzz::append(body, wire::DirtyBitmap{4096, input_.number()});
        break;
      case Command::device_get_info:
        fuzz::append(body, wire::DeviceInfo{argsz(sizeof(wire::DeviceInfo)), 0, 0, 0});
        break;
      case Command::device_get_region_info:
        fuzz::append(body, wire::RegionInfo{argsz(256), 0, small(), 0, 0, 0});
        break;
      case Command::device_get_region_io_fds:
        fuzz::append(body, wire::RegionIoFds{argsz(1024), 0, small(), 0});
        break;
      case Command::device_get_irq_info:
        fuzz::append(body, wire::IrqInfo{argsz(sizeof(wire::IrqInfo)), 0, small(), 0});
        break;
      case Command::device_set_irqs: {
        static constexpr std::uint32_t kFlags[] = {
            wire::kSetIrqsDataEventfd | wire::kSetIrqsActionTrigger,
            wire::kSetIrqsDataNone | wire::kSetIrqsActionTrigger,
            wire::kSetIrqsDataBool | wire::kSetIrqsActionTrigger,
            wire::kSetIrqsDataNone | wire::kSetIrqsActionMask,
            wire::kSetIrqsDataNone | wire::kSetIrqsActionUnmask,
            wire::kSetIrqsDataEventfd | wire::kSetIrqsActionMask,
            wire::kSetIrqsDataEventfd | wire::kSetIrqsActionUnmask,
            wire::kSetIrqsDataBool | wire::kSetIrqsActionMask};
        wire::SetIrqs set{argsz(sizeof set),
                          input_.one_in(8) ? input_.byte() : input_.one_of(kFlags), small(),
                          small(), small()};
        fuzz::append(body, set);
        if ((set.flags & wire::kSetIrqsDataBool) != 0) body.resize(body.size() + set.count);
        if ((set.flags & wire::kSetIrqsDataEventfd) != 0 && !input_.one_in(4)) {
          for (std::uint32_t i = 0; i < set.count; ++i) {
            fds.push_back(input_.one_in(8) ? fuzz::file(static_cast<std::uint32_t>(
                                                 input_.below(fuzz::kFileKinds)))
                                           : fuzz::event());
          }
        }
        break;
      }
      case Command::region_read:
      case Command::region_write: {
        wire::RegionAccess access{
            input_.one_in(8) ? input_.number() : input_.below(0x1010), small(),
            input_.one_in(8) ? static_cast<std::uint32_t>(input_.number()) : 4};
        fuzz::append(body, access);
        if (command == Command::region_write) {
          const auto value = input_.bytes(std::min<std::uint32_t>(access.count, 16));
          fuzz::append(body, value);
          body.resize(sizeof access + std::min<std::uint32_t>(access.count, 0x4000));
        }
        break;
      }
      case Command::region_write_multi: {
        const std::size_t count = input_.below(5);
        fuzz::append(body, wire::WriteMulti{count});
        for (std::size_t i = 0; i < count; ++i) {
          wire::WriteMultiEntry entry{input_.below(0x1010), small(), 1 + small() % 8, {}};
          entry.data[0] = input_.byte();
          fuzz::append(body, entry);
        }
        break;
      }
      default:
        fuzz::append(body, input_.bytes(input_.below(64)));
        break;
    }
    change(body);
    if (input_.one_in(32)) fds.push_back(fuzz::event());
    put({input_.byte(), static_cast<std::uint16_t>(command), 0,
         input_.one_in(8) ? wire::kNoReply : 0, 0},
        body, std::move(fds));
  }

  Input& input_;
  std::size_t messages_ = 0;
  wire::Header asked_{};
  wire::DmaAccess asked_access_{};
};

// Regions of bytes; a write to BAR 0 starts a DMA to or from an address that it names.
class Device final : public DeviceModel {
 public:
  Device() : pages_(fuzz::file(0)), rang_(fuzz::event()) {
    constexpr std::uint32_t kBoth = wire::kRegionReadable | wire::kRegionWritable;
    shape_.regions[0] = {kBoth, 0x1000, 0, {}, -1};
    shape_.regions[1] = {
        kBoth | wire::kRegionMappable, 0x10000, 0, {{0x1000, 0x2000}}, pages_.get()};
    shape_.regions[2] = {wire::kRegionReadable, 0x20, 0, {}, -1};
    shape_.regions[3] = {wire::kRegionWritable, 0x20, 0, {}, -1};
    shape_.regions[7] = {kBoth, 0x1000, 0, {}, -1};
    shape_.irqs[0] = {wire::kIrqEventfd | wire::kIrqMaskable | wire::kIrqAutomasked, 1};
    shape_.irqs[2] = {wire::kIrqEventfd | wire::kIrqMaskable | wire::kIrqNoResize, 8};
  }
  void serve(ServerSession& session) { session_ = &session; }

  const DeviceShape& shape() const override { return shape_; }
  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override {
    check(region, offset, data.size(), wire::kRegionReadable);
    std::ranges::fill(data, std::byte{0x5a});
    return offset == 0xff0 ? EIO : 0;
  }
  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override {
    check(region, offset, data.size(), wire::kRegionWritable);
    if (region != 0 || data.size() < 4) return 0;
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    std::byte bytes[600];
    const auto some = std::span(bytes).first(value % sizeof bytes);
    if (offset < 0x400) {
      const int error = session_->dma_read(value & 0x3ffff, some);
      require(error >= 0);
    } else if (offset < 0x800) {
      std::ranges::fill(bytes, std::byte{1});
      require(session_->dma_write(value & 0x3ffff, some) >= 0);
    } else {
      std::uint64_t signalled = 0;
      static_cast<void>(session_->irqs().trigger(value & 3, value >> 2 & 15, signalled));
    }
    return 0;
  }
  void reset() override {}
  void dma_mapped(const ServerWindow& window) override {
    require(window.size > 0 && (window.host.empty() || window.host.size() == window.size));
    windows_ += 1;
  }
  void dma_unmapping(const ServerWindow&) override {
    require(windows_ > 0);
    windows_ -= 1;
  }
  std::vector<ServerIoFd> io_fds(std::uint32_t region) override {
    if (region != 0) return {};
    return {{0x10, 4, rang_.get(), 0, 0}, {0x18, 0, rang_.get(), wire::kIoEventFdDatamatch, 5}};
  }
  int windows() const { return windows_; }

 private:
  void check(std::uint32_t region, std::uint64_t offset, std::size_t size,
             std::uint32_t flag) const {
    require(region < wire::kPciRegions && size > 0);
    const ServerRegion& shape = shape_.regions[region];
    require((shape.flags & flag) != 0 && offset <= shape.size && size <= shape.size - offset);
  }

  const UniqueFd pages_;
  const UniqueFd rang_;
  DeviceShape shape_;
  ServerSession* session_ = nullptr;
  int windows_ = 0;
};

// Turns of the event loop are the target's own; it only remembers the keys of the mask eventfds.
class Events final : public SessionEvents {
 public:
  Result<void> watch(int fd, bool, std::uint64_t key) override {
    keys_.push_back({fd, key});
    return {};
  }
  void rewatch(int, bool, std::uint64_t) override {}
  void unwatch(int fd) override {
    std::erase_if(keys_, [&](const auto& watched) { return watched.first == fd; });
  }
  // Whatever has a key beyond the main socket's, in turn.
  std::uint64_t any(std::uint64_t n) const { return keys_.at(n % keys_.size()).second; }
  std::size_t count() const { return keys_.size(); }

 private:
  std::vector<std::pair<int, std::uint64_t>> keys_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  ServerOptions options;
  options.max_data_xfer_size = 0x4000;
  options.max_dma_maps = 6;
  options.dma_timeout = std::chrono::milliseconds(input.one_in(8) ? 0 : 1000);
  options.require_sealed_memory = input.one_in(8);
  options.wide_io_fds = input.one_in(4);
  options.twin_socket = input.one_in(4);
  std::size_t lines = 0;
  options.log = [&](const std::string& line) { lines += line.empty() ? 0 : 1; };

  Device device;
  Server::Counters counters;
  Events events;
  auto transport = std::make_unique<Client>(input);
  {
    ServerSession session(std::move(transport), device, options, counters, events);
    device.serve(session);
    require(session.start().has_value());
    for (int turn = 0; turn < 300 && !session.end(); ++turn) {
      session.on_ready(ServerSession::kMainSocket);
      if (session.has_work()) session.resume();
      // A mask eventfd, sometimes; with a twin socket nobody answers there.
      if (turn % 8 == 7) {
        const std::uint64_t key = events.any(static_cast<std::uint64_t>(turn) / 8);
        if (key != ServerSession::kMainSocket) session.on_ready(key);
      }
    }
    session.take_down();
    require(device.windows() == 0);
  }
  require(events.count() == 0);
  return 0;
}
