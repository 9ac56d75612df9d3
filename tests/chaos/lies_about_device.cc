// CONFORMANCE C: what a device says of itself, when the machine comes back to it.
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;

constexpr std::uint32_t kPageFlags =
    wire::kRegionReadable | wire::kRegionWritable | wire::kRegionMappable;

Tell with_info(std::function<void(wire::DeviceInfo&)> change) {
  return at_reply(Command::device_get_info,
                  [change = std::move(change)](Stage& stage, Event& event) {
                    auto info = event.message.as<wire::DeviceInfo>();
                    change(info);
                    reply(stage, event, bytes_of(info));
                  });
}

Tell with_region(std::uint32_t region, std::function<void(wire::RegionInfo&)> change) {
  return at_region_info(
      region, [change = std::move(change)](Stage& stage, Event& event, wire::RegionInfo info) {
        change(info);
        reply(stage, event, bytes_of(info));
      });
}

// BAR 0, which has no pages, is said to have some, described by these bytes and descriptors.
Tell with_pages(Bytes tail, std::uint32_t cap_offset,
                std::function<std::vector<UniqueFd>()> files) {
  return at_region_info(wire::kRegionBar0,
                        [tail = std::move(tail), cap_offset, files = std::move(files)](
                            Stage& stage, Event& event, wire::RegionInfo info) {
                          info.argsz = static_cast<std::uint32_t>(sizeof info + tail.size());
                          info.flags = kPageFlags | wire::kRegionCapabilities;
                          info.cap_offset = cap_offset;
                          const auto owned = files();
                          std::vector<int> fds;
                          for (const UniqueFd& fd : owned) fds.push_back(fd.get());
                          reply(stage, event, bytes_of(info) + tail, fds);
                        });
}

std::vector<UniqueFd> one_file() {
  std::vector<UniqueFd> out;
  out.push_back(shared_file(1 << 16));
  return out;
}

std::vector<UniqueFd> opened(const char* path, int flags) {
  std::vector<UniqueFd> out;
  out.emplace_back(::open(path, flags | O_CLOEXEC));
  return out;
}

Bytes capability(std::uint16_t id, std::uint32_t next) {
  return bytes_of(wire::CapabilityHeader{id, 1, next});
}

Bytes many_capabilities() {
  Bytes out;
  for (std::uint32_t i = 0; i < 1000; ++i) out = std::move(out) + capability(77, 32 + 8 * (i + 1));
  return out + capability(77, 0);
}

Bytes area_count(std::uint32_t count) {
  return capability(wire::kCapSparseMmap, 0) + bytes_of(wire::SparseMmap{count, 0});
}

}  // namespace

std::vector<Lie> lies_about_device() {
  std::vector<Lie> out;
  const auto attaching = [&](const char* item, std::string what, Outcome outcome, Tell tell) {
    out.push_back({item, std::move(what), When::attaching, outcome, std::move(tell)});
  };
  for (const std::uint32_t count : {0U, 7U, 101U, 0xffffffffU}) {
    attaching("C35", std::to_string(count) + " regions", Outcome::dropped,
              with_info([count](wire::DeviceInfo& info) { info.num_regions = count; }));
  }
  attaching("C35", "4294967295 types of interrupt", Outcome::dropped,
            with_info([](wire::DeviceInfo& info) { info.num_irqs = 0xffffffff; }));
  attaching("C36", "no PCI device", Outcome::dropped,
            with_info([](wire::DeviceInfo& info) { info.flags &= ~wire::kDevicePci; }));
  attaching("C36", "a device that cannot be reset", Outcome::goes_on,
            with_info([](wire::DeviceInfo& info) { info.flags &= ~wire::kDeviceResettable; }));
  for (const std::uint32_t argsz : {0U, 31U}) {
    attaching("C37", "a region described in " + std::to_string(argsz) + " bytes", Outcome::dropped,
              with_region(2, [argsz](wire::RegionInfo& info) { info.argsz = argsz; }));
  }
  for (const std::uint32_t argsz : {0x80000000U, 0xffffffffU}) {
    attaching("C37", "a region described in " + std::to_string(argsz) + " bytes", Outcome::goes_on,
              with_region(2, [argsz](wire::RegionInfo& info) { info.argsz = argsz; }));
  }
  const Bytes good = sparse_areas({{0x1000, 0x1000}});
  for (const std::uint32_t offset : {0U, 8U, 31U, 33U, 4096U, 0xffffffffU}) {
    attaching("C38", "a capability at " + std::to_string(offset), Outcome::goes_on,
              with_pages(good, offset, one_file));
  }
  attaching("C38", "a capability that is not there", Outcome::goes_on,
            with_pages({}, 32, one_file));
  attaching("C39", "a capability that follows itself", Outcome::goes_on,
            with_pages(capability(77, 32), 32, one_file));
  attaching("C39", "two that follow each other", Outcome::goes_on,
            with_pages(capability(77, 40) + capability(78, 32), 32, one_file));
  attaching("C39", "a thousand unknown ones", Outcome::goes_on,
            with_pages(many_capabilities(), 32, one_file));
  attaching("C40", "an unknown capability, and no other", Outcome::goes_on,
            with_pages(capability(77, 0), 32, one_file));
  for (const std::uint32_t count : {0U, 5U, 1U << 28}) {
    attaching("C41", std::to_string(count) + " areas that are not there", Outcome::goes_on,
              with_pages(area_count(count), 32, one_file));
  }
  const std::vector<std::pair<const char*, wire::SparseMmapArea>> areas = {
      {"an empty area", {0x1000, 0}},
      {"an area that is not aligned", {0x1001, 0x1000}},
      {"an area beyond its region", {0x100000, 0x1000}},
      {"an area that wraps", {~std::uint64_t{0} - 0xfff, 0x2000}},
  };
  for (const auto& [what, area] : areas) {
    attaching("C42", what, Outcome::goes_on,
              with_pages(area_count(1) + bytes_of(area), 32, one_file));
  }
  attaching("C43", "pages without a descriptor", Outcome::goes_on,
            with_pages(good, 32, [] { return std::vector<UniqueFd>(); }));
  attaching("C43", "a descriptor without pages", Outcome::goes_on,
            at_region_info(0, [](Stage& stage, Event& event, wire::RegionInfo info) {
              const auto file = shared_file(1 << 16);
              const int fd = file.get();
              reply(stage, event, bytes_of(info), std::span(&fd, 1));
            }));
  attaching("C44", "two descriptors for three areas", Outcome::goes_on,
            with_pages(sparse_areas({{0, 0x1000}, {0x1000, 0x800}, {0x1800, 0x800}}), 32, [] {
              auto two = one_file();
              two.push_back(shared_file(1 << 16));
              return two;
            }));
  attaching("C45", "pages of a file that is read only", Outcome::goes_on,
            with_pages(good, 32, [] { return opened("/etc/passwd", O_RDONLY); }));
  attaching("C45", "pages of a folder", Outcome::goes_on,
            with_pages(good, 32, [] { return opened("/", O_RDONLY | O_DIRECTORY); }));
  attaching("C45", "pages of /dev/zero", Outcome::goes_on,
            with_pages(good, 32, [] { return opened("/dev/zero", O_RDWR); }));
  attaching("C45", "pages of a pipe", Outcome::goes_on, with_pages(good, 32, [] {
              int ends[2] = {-1, -1};
              if (::pipe2(ends, O_CLOEXEC) != 0) return std::vector<UniqueFd>();
              const UniqueFd other(ends[0]);
              std::vector<UniqueFd> made;
              made.emplace_back(ends[1]);
              return made;
            }));
  attaching("C45", "pages beyond the end of their file", Outcome::goes_on, with_pages(good, 32, [] {
              std::vector<UniqueFd> made;
              made.push_back(shared_file(4096));
              return made;
            }));
  for (const std::uint64_t offset : {std::uint64_t{0x801}, std::uint64_t{1} << 63}) {
    attaching("C46", "pages at " + std::to_string(offset) + " of a file", Outcome::goes_on,
              at_region_info(0, [offset, good](Stage& stage, Event& event, wire::RegionInfo info) {
                info.argsz = static_cast<std::uint32_t>(sizeof info + good.size());
                info.flags = kPageFlags | wire::kRegionCapabilities;
                info.cap_offset = sizeof info;
                info.offset = offset;
                const auto file = shared_file(1 << 16);
                const int fd = file.get();
                reply(stage, event, bytes_of(info) + good, std::span(&fd, 1));
              }));
  }
  return out;
}

namespace {

// The configuration space as attaching reads it, changed.
Tell with_config(std::function<void(std::span<std::byte>)> change) {
  return [change = std::move(change)](Stage& stage, Event& event) {
    if (!is_reply_to(event, Command::region_read)) return Told::not_yet;
    const auto access = event.message.as<wire::RegionAccess>();
    if (access.region != wire::kRegionConfig || access.offset != 0 || access.count < 256) {
      return Told::not_yet;
    }
    change(std::span(event.message.payload).subspan(sizeof access));
    stage.tap.pass(event);
    return Told::done;
  };
}

Tell with_msix(std::function<void(wire::IrqInfo&)> change) {
  return [change = std::move(change)](Stage& stage, Event& event) {
    if (!is_reply_to(event, Command::device_get_irq_info)) return Told::not_yet;
    auto info = event.message.as<wire::IrqInfo>();
    if (info.index != wire::kIrqMsix) return Told::not_yet;
    change(info);
    reply(stage, event, bytes_of(info));
    return Told::done;
  };
}

void put(std::span<std::byte> config, std::size_t at, std::uint32_t value, std::size_t size) {
  std::memcpy(config.data() + at, &value, size);
}

std::uint8_t get(std::span<const std::byte> config, std::size_t at) {
  return static_cast<std::uint8_t>(config[at]);
}

// The offset of the MSI-X capability.
std::size_t msix_of(std::span<const std::byte> config) {
  std::size_t at = get(config, 0x34);
  for (int hops = 0; hops < 48 && at != 0 && get(config, at) != 0x11; ++hops) {
    at = get(config, at + 1);
  }
  return at;
}

}  // namespace

std::vector<Lie> last_lies() {
  std::vector<Lie> out;
  const auto lost = [&](const char* item, std::string what, Tell tell) {
    out.push_back({item, std::move(what), When::attaching, Outcome::given_up, std::move(tell)});
  };
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{0x3000}, std::uint64_t{1} << 40}) {
    lost("C47", "a BAR of " + std::to_string(size) + " bytes",
         with_region(0, [size](wire::RegionInfo& info) { info.size = size; }));
  }
  lost("C47", "another region that may be written",
       with_region(0, [](wire::RegionInfo& info) { info.flags = wire::kRegionReadable; }));
  lost("C48", "a configuration space of nothing but ones",
       with_config([](auto config) { std::memset(config.data(), 0xff, config.size()); }));
  lost("C48", "a list of capabilities that loops",
       with_config([](auto config) { put(config, get(config, 0x34) + 1, get(config, 0x34), 1); }));
  lost("C48", "an MSI-X table in a BAR that is not there",
       with_config([](auto config) { put(config, msix_of(config) + 4, 5, 4); }));
  lost("C48", "2048 vectors",
       with_config([](auto config) { put(config, msix_of(config) + 2, 2047, 2); }));
  lost("C49", "a 64-bit BAR in the last place",
       with_config([](auto config) { put(config, 0x24, 0x4, 4); }));
  for (const std::uint32_t count : {0U, 1U, 2048U}) {
    lost("C64", std::to_string(count) + " vectors",
         with_msix([count](wire::IrqInfo& info) { info.count = count; }));
  }
  lost("C64", "vectors without eventfds",
       with_msix([](wire::IrqInfo& info) { info.flags &= ~wire::kIrqEventfd; }));
  lost("C99", "another device", with_config([](auto config) { put(config, 0, 0x0fed1b36, 4); }));
  return out;
}

}  // namespace outboard::chaos
