// attach(): DMA windows, device, regions, interrupts and configuration space in few round trips.
#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "vfio_user/batch.h"
#include "vfio_user/client_impl.h"
#include "vfio_user/client_requests.h"
#include "vfio_user/codec.h"
#include "vfio_user/region_pages.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

// A PCI device has 9 regions and 5 interrupts; more are no business of ours, many more are
// nonsense.
constexpr std::uint32_t kMinRegions = wire::kRegionConfig + 1;
constexpr std::uint32_t kMaxRegions = 100;
constexpr std::uint32_t kMaxIrqs = 50;
// A MSI-X table has at most 2048 entries.
constexpr std::uint32_t kMaxVectors = 2048;
// Room for the structure, a capability chain, and as many areas as the codec takes.
constexpr std::uint32_t kMaxRegionInfo =
    sizeof(wire::RegionInfo) + 1024 + kMaxSparseAreas * sizeof(wire::SparseMmapArea);
// PCI Express: the configuration space of a function.
constexpr std::uint64_t kMaxConfig = 4096;

std::string region_query(std::uint32_t index) {
  return "DEVICE_GET_REGION_INFO for " + region_text(index);
}

}  // namespace

Result<DeviceDescription> Client::Impl::attach(std::span<const DmaWindow> windows,
                                               std::span<const SignalFd> signals) {
  if (attach_begun_.exchange(true)) {
    return explain({Error::Kind::invalid, EALREADY, "it was called before"}, "attach");
  }
  DeviceDescription device;
  auto info = map_and_get_info(windows, device.round_trips);
  if (!info) return tl::make_unexpected(std::move(info.error()));
  device.mapped_at = std::chrono::steady_clock::now();
  device.resettable = (info->flags & wire::kDeviceResettable) != 0;
  if (auto asked = query(device, *info, signals); !asked) {
    for (const DmaWindow& window : windows) {
      static_cast<void>(dma_unmap(window.address, window.size));
    }
    return tl::make_unexpected(std::move(asked.error()));
  }

  shape_.resettable = device.resettable;
  bool overtaken = false;  // posted writes would be: by stores to a page or an eventfd
  for (const Region& region : device.regions) {
    shape_.regions.push_back({region.size, region.readable, region.writable, region.areas});
    overtaken = overtaken || region.mappable || !region.io_fds.empty();
  }
  for (const Irq& irq : device.irqs) shape_.irqs.push_back({irq.count, irq.eventfd});
  posting_.store(options_.posted_writes == Posting::automatic && !overtaken);
  attached_.store(true, std::memory_order_release);
  return device;
}

Result<wire::DeviceInfo> Client::Impl::map_and_get_info(std::span<const DmaWindow> windows,
                                                        std::uint32_t& rounds) {
  const auto text = [](const DmaWindow& w) {
    return "DMA_MAP of " + window_text(w.address, w.size);
  };
  for (std::size_t i = 0; i < windows.size(); ++i) {
    auto good = check_window(windows[i]);
    if (good) good = dma_.add(windows[i], server_.max_dma_maps);
    if (good) continue;
    for (const DmaWindow& added : windows.first(i)) dma_.remove(added.address, added.size);
    return explain(good.error(), text(windows[i]));
  }

  Batch batch(*connection_);
  for (const DmaWindow& window : windows) {
    if (window.fd < 0 && !twin_) connection_->set_single_flight();
    wire::DmaMap map = dma_map_payload(window);
    const iovec body{&map, sizeof map};
    batch.add({.command = wire::Command::dma_map,
               .body = {&body, 1},
               .fds = fds_of(window),
               .timeout = options_.timeouts.dma,
               .keep = 0});
  }
  wire::DeviceInfo ask{sizeof ask, 0, 0, 0};
  const iovec body{&ask, sizeof ask};
  batch.add({.command = wire::Command::device_get_info,
             .body = {&body, 1},
             .fds = {},
             .timeout = options_.timeouts.setup,
             .keep = sizeof ask});
  std::vector<Result<Reply>> results = batch.finish();
  rounds += batch.rounds();

  tl::expected<wire::DeviceInfo, Error> info;
  std::string failed;
  for (std::size_t i = 0; i < windows.size() && failed.empty(); ++i) {
    if (results[i]) continue;
    failed = text(windows[i]);
    info = tl::make_unexpected(results[i].error());
  }
  if (failed.empty()) {
    failed = "DEVICE_GET_INFO";
    if (!results.back()) {
      info = tl::make_unexpected(results.back().error());
    } else if (info = parse_device_info_reply(results.back()->payload); !info) {
    } else if ((info->flags & wire::kDevicePci) == 0) {
      info = fail(Error::Kind::invalid, ENODEV, "the device is no PCI device");
    } else if (info->num_regions < kMinRegions || info->num_regions > kMaxRegions ||
               info->num_irqs > kMaxIrqs) {
      info = fail(Error::Kind::invalid, ENODEV,
                  "a PCI device cannot have " + std::to_string(info->num_regions) +
                      " regions and " + std::to_string(info->num_irqs) + " interrupt types");
    }
  }
  if (info) return info;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const bool refused = !results[i] && results[i].error().kind != Error::Kind::timeout;
    if (refused || !dma_unmap(windows[i].address, windows[i].size)) {
      dma_.remove(windows[i].address, windows[i].size);
    }
  }
  return explain(info.error(), failed);
}

Result<void> Client::Impl::query(DeviceDescription& device, const wire::DeviceInfo& info,
                                 std::span<const SignalFd> signals) {
  const std::uint32_t regions = std::min(info.num_regions, wire::kPciRegions);
  const std::uint32_t irqs = std::min(info.num_irqs, wire::kPciIrqs);
  Batch batch(*connection_);
  for (std::uint32_t index = 0; index < regions; ++index) {
    wire::RegionInfo ask{sizeof ask, 0, index, 0, 0, 0};
    const iovec body{&ask, sizeof ask};
    batch.add({.command = wire::Command::device_get_region_info,
               .body = {&body, 1},
               .fds = {},
               .timeout = options_.timeouts.setup,
               .keep = sizeof ask});
  }
  for (std::uint32_t index = 0; index < irqs; ++index) {
    wire::IrqInfo ask{sizeof ask, 0, index, 0};
    const iovec body{&ask, sizeof ask};
    batch.add({.command = wire::Command::device_get_irq_info,
               .body = {&body, 1},
               .fds = {},
               .timeout = options_.timeouts.setup,
               .keep = sizeof ask});
  }
  std::vector<Result<Reply>> results = batch.finish();
  device.round_trips += batch.rounds();

  std::vector<Reply> first;
  for (std::uint32_t index = 0; index < regions; ++index) {
    if (!results[index]) return explain(results[index].error(), region_query(index));
    const auto reply = read_struct<wire::RegionInfo>(results[index]->payload);
    if (!reply || reply->index != index || reply->argsz < sizeof *reply) {
      return broken({Error::Kind::protocol, EPROTO, "the reply is too short or for another region"},
                    region_query(index));
    }
    first.push_back(std::move(*results[index]));
  }
  for (std::uint32_t index = 0; index < irqs; ++index) {
    const std::string what = "DEVICE_GET_IRQ_INFO for " + irq_text(index);
    Result<Reply>& result = results[regions + index];
    if (!result) return explain(result.error(), what);
    const auto reply = parse_irq_info_reply(result->payload);
    if (!reply) return broken(reply.error(), what);
    if (reply->index != index) {
      return broken({Error::Kind::protocol, EPROTO, "the reply is for another index"}, what);
    }
    if (reply->count > kMaxVectors) {
      return explain({Error::Kind::invalid, ENODEV,
                      "no device has " + std::to_string(reply->count) + " vectors"},
                     what);
    }
    const auto has = [&](std::uint32_t flag) { return (reply->flags & flag) != 0; };
    device.irqs.push_back({.index = index,
                           .count = reply->count,
                           .eventfd = has(wire::kIrqEventfd),
                           .maskable = has(wire::kIrqMaskable),
                           .automasked = has(wire::kIrqAutomasked),
                           .noresize = has(wire::kIrqNoResize),
                           .armed = false,
                           .refused = {}});
  }
  return query_again(device, first, signals);
}

Result<void> Client::Impl::query_again(DeviceDescription& device, std::vector<Reply>& first,
                                       std::span<const SignalFd> signals) {
  const auto fixed = [&](std::size_t i) {
    return *read_struct<wire::RegionInfo>(first[i].payload);
  };
  // Only pages have more to tell than the structure; without enough room servers hold the fd back.
  const auto has_more = [&](std::size_t i) {
    const wire::RegionInfo info = fixed(i);
    return (info.flags & wire::kRegionMappable) != 0 && info.argsz > sizeof info &&
           info.argsz <= kMaxRegionInfo;
  };
  Batch batch(*connection_);
  for (std::uint32_t index = 0; index < first.size(); ++index) {
    if (!has_more(index)) continue;
    wire::RegionInfo ask{fixed(index).argsz, 0, index, 0, 0, 0};
    const iovec body{&ask, sizeof ask};
    batch.add({.command = wire::Command::device_get_region_info,
               .body = {&body, 1},
               .fds = {},
               .timeout = options_.timeouts.setup,
               .keep = ask.argsz});
  }
  const wire::RegionInfo config = fixed(wire::kRegionConfig);
  const bool config_readable = (config.flags & wire::kRegionReadable) != 0;
  if (config_readable) device.config.resize(std::min(config.size, kMaxConfig));
  const std::size_t chunk = static_cast<std::size_t>(
      std::min<std::uint64_t>(device.config.size(), server_.max_data_xfer_size));
  for (std::size_t at = 0; at < device.config.size(); at += chunk) {
    wire::RegionAccess access{
        at, wire::kRegionConfig,
        static_cast<std::uint32_t>(std::min(chunk, device.config.size() - at))};
    const iovec body{&access, sizeof access};
    batch.add({.command = wire::Command::region_read,
               .body = {&body, 1},
               .fds = {},
               .timeout = options_.timeouts.access,
               .keep = sizeof access + access.count});
  }
  // Only writable BARs without pages: on a page no ioeventfd would ever fire.
  const auto asks_io_fds = [&](std::uint32_t index) {
    const wire::RegionInfo info = fixed(index);
    return index < wire::kRegionRom && info.size != 0 &&
           (info.flags & wire::kRegionWritable) != 0 && (info.flags & wire::kRegionMappable) == 0;
  };
  for (std::uint32_t index = 0; index < first.size(); ++index) {
    if (!asks_io_fds(index)) continue;
    wire::RegionIoFds ask{kIoFdsRoom, 0, index, 0};
    const iovec body{&ask, sizeof ask};
    batch.add(io_fds_request(body, kIoFdsRoom, options_.timeouts.setup));
  }
  std::vector<Irq*> asked_irqs;
  for (const SignalFd& signal : signals) {
    if (signal.index >= device.irqs.size()) continue;
    Irq& irq = device.irqs[signal.index];
    if (!irq.eventfd || irq.count == 0) continue;
    if (server_.max_msg_fds == 0) {
      irq.refused = name_ + ": the server takes no descriptors (max_msg_fds 0)";
      continue;
    }
    wire::SetIrqs set{sizeof set, wire::kSetIrqsDataEventfd | wire::kSetIrqsActionTrigger,
                      signal.index, 0, 1};
    const iovec body{&set, sizeof set};
    batch.add({.command = wire::Command::device_set_irqs,
               .body = {&body, 1},
               .fds = {&signal.eventfd, 1},
               .timeout = options_.timeouts.setup,
               .keep = 0});
    asked_irqs.push_back(&irq);
  }
  std::vector<Result<Reply>> results = batch.finish();
  device.round_trips += batch.rounds();
  auto next = results.begin();

  for (std::uint32_t index = 0; index < first.size(); ++index) {
    Reply* reply = &first[index];
    std::uint32_t asked = sizeof(wire::RegionInfo);
    if (has_more(index)) {
      if (!*next) return explain(next->error(), region_query(index));
      asked = fixed(index).argsz;
      reply = &**next++;
    }
    const auto info = read_struct<wire::RegionInfo>(reply->payload);
    if (!info || info->index != index || info->argsz < sizeof *info) {
      return broken({Error::Kind::protocol, EPROTO, "the reply is too short or for another region"},
                    region_query(index));
    }
    Region region;
    region.index = index;
    region.size = info->size;
    region.readable = (info->flags & wire::kRegionReadable) != 0;
    region.writable = (info->flags & wire::kRegionWritable) != 0;
    region.file_offset = info->offset;
    auto parsed = parse_region_info_reply(reply->payload);
    if ((info->flags & wire::kRegionMappable) == 0) {
      // No pages, whatever else came with the reply.
    } else if (info->argsz > asked) {
      region.trapped_because =
          "its description of " + std::to_string(info->argsz) + " bytes does not come to an end";
    } else if (!parsed) {
      region.trapped_because = parsed.error().message;
    } else {
      judge_pages(region, *parsed, std::move(reply->fds));
    }
    device.regions.push_back(std::move(region));
  }

  for (std::size_t at = 0; at < device.config.size(); at += chunk, ++next) {
    const std::string what = "REGION_READ of the configuration space at " + hex(at);
    if (!*next) return explain(next->error(), what);
    const std::size_t size = std::min(chunk, device.config.size() - at);
    const auto got = parse_region_read_reply((*next)->payload);
    if (!got) return broken(got.error(), what);
    if (got->fixed.offset != at || got->fixed.region != wire::kRegionConfig ||
        got->fixed.count != size) {
      return broken({Error::Kind::protocol, EPROTO, "the reply is for another range"}, what);
    }
    std::copy(got->data.begin(), got->data.end(),
              device.config.begin() + static_cast<std::ptrdiff_t>(at));
  }

  for (std::uint32_t index = 0; index < first.size(); ++index) {
    if (!asks_io_fds(index)) continue;
    Region& region = device.regions[index];
    auto ranges = judge_io_fds(index, region.size, region.areas, std::move(*next++), kIoFdsRoom);
    if (ranges) {
      region.io_fds = std::move(*ranges);
    } else if (!connection_->alive()) {
      return tl::make_unexpected(std::move(ranges.error()));
    } else {  // without ioeventfds every store is a message, and right
      region.io_fds_refused = std::move(ranges.error().message);
    }
  }

  for (Irq* const irq : asked_irqs) {  // a device without them is whole
    const Result<Reply>& result = *next++;
    irq->armed = result.has_value();
    if (irq->armed) continue;
    auto refused = explain(result.error(), "SET_IRQS for " + irq_text(irq->index));
    if (!connection_->alive()) return refused;
    irq->refused = std::move(refused.value().message);
  }
  return {};
}

}  // namespace outboard::vfio_user
