// Each message body on its own, as codec.h reads it: region and interrupt descriptions, eventfd
// ranges, DMA windows, accesses. What is accepted is inside its message; what is written is read
// back.
#include <vector>

#include <sys/stat.h>

#include "tests/fuzz/files.h"
#include "tests/fuzz/input.h"
#include "vfio_user/codec.h"
#include "vfio_user/region_pages.h"

using namespace outboard;
using namespace outboard::vfio_user;
using fuzz::Input;
using fuzz::require;

namespace {

using Payload = std::span<const std::byte>;

bool inside(Payload part, Payload whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

template <class Parsed>
void check_error(const Parsed& parsed) {
  if (!parsed) require(parsed.error().kind == Error::Kind::protocol && parsed.error().code > 0);
}

// The pages a server offers, judged against files that it sends along.
void region_info(Input& input, Payload payload) {
  const auto reply = parse_region_info_reply(payload);
  check_error(reply);
  if (!reply) return;
  require(reply->areas.size() <= kMaxSparseAreas && reply->areas.size() * 16 <= payload.size());
  if (!reply->areas.empty()) {
    const auto bytes = encode_sparse_areas(reply->areas);
    std::vector<std::byte> again;
    wire::RegionInfo fixed = reply->fixed;
    fixed.flags |= wire::kRegionCapabilities;
    fixed.cap_offset = sizeof fixed;
    fixed.argsz = static_cast<std::uint32_t>(sizeof fixed + bytes.size());
    again.resize(sizeof fixed);
    std::memcpy(again.data(), &fixed, sizeof fixed);
    again.insert(again.end(), bytes.begin(), bytes.end());
    const auto second = parse_region_info_reply(again);
    require(second && second->areas == reply->areas);
  }

  Region region;
  region.size = reply->fixed.size;
  region.readable = (reply->fixed.flags & wire::kRegionReadable) != 0;
  region.writable = (reply->fixed.flags & wire::kRegionWritable) != 0;
  std::vector<UniqueFd> fds;
  for (std::size_t left = input.below(4); left > 0; --left) {
    fds.push_back(fuzz::file(static_cast<std::uint32_t>(input.below(fuzz::kFileKinds))));
  }
  judge_pages(region, *reply, std::move(fds));
  require(region.mappable == !region.areas.empty());
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < region.areas.size(); ++i) {
    const SparseArea& area = region.areas[i];
    require(area.size > 0 && (area.offset | area.size) % 4096 == 0 && area.offset >= end);
    require(area.offset <= region.size && area.size <= region.size - area.offset);
    end = area.offset + area.size;
    struct stat status {};
    require(::fstat(region.area_fd(i), &status) == 0 && S_ISREG(status.st_mode));
    const auto size = static_cast<std::uint64_t>(status.st_size);
    require(region.file_offset <= size && end <= size - region.file_offset);
  }
}

void io_fds(Payload payload) {
  const auto reply = parse_region_io_fds_reply(payload);
  check_error(reply);
  if (!reply) return;
  require(reply->entries.size() * sizeof(wire::IoFdEntry) <= payload.size());
  for (const bool wide : {false, true}) {
    const auto bytes = encode_io_fds(reply->entries, wide);
    require(bytes.size() == reply->entries.size() * (wide ? 48 : 40));
  }
}

void set_irqs(Payload payload) {
  const auto request = parse_set_irqs(payload);
  check_error(request);
  if (!request) return;
  require(request->fixed.start + std::uint64_t{request->fixed.count} <= 0xffff'ffff + 1ULL);
  require(inside(request->data, payload));
  if ((request->fixed.flags & wire::kSetIrqsDataBool) != 0) {
    require(request->data.size() == request->fixed.count);
  }
}

template <class Parsed>
void with_data(const Parsed& parsed, Payload payload) {
  check_error(parsed);
  if (parsed) require(inside(parsed->data, payload) && parsed->data.size() <= payload.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t kind = input.byte();
  Input choices = input.again();
  if (kind % 16 < 2) input.bytes(4);  // of the descriptors
  const Payload payload = input.rest();
  switch (kind % 16) {
    case 0:
    case 1:
      region_info(choices, payload);
      break;
    case 2:
      io_fds(payload);
      break;
    case 3:
      check_error(parse_irq_info_reply(payload));
      check_error(parse_irq_info_request(payload));
      break;
    case 4:
      set_irqs(payload);
      break;
    case 5:
      check_error(parse_device_info_reply(payload));
      check_error(parse_device_info_request(payload));
      break;
    case 6:
      with_data(parse_region_read_reply(payload), payload);
      check_error(parse_region_write_reply(payload));
      break;
    case 7:
      with_data(parse_region_write_request(payload), payload);
      check_error(parse_region_read_request(payload));
      break;
    case 8: {
      const auto entries = parse_write_multi_request(payload);
      check_error(entries);
      if (entries) {
        require(entries->size() * sizeof(wire::WriteMultiEntry) + 8 == payload.size());
        for (const auto& entry : *entries) require(entry.count >= 1 && entry.count <= 8);
      }
      check_error(parse_write_multi_reply(payload));
      break;
    }
    case 9:
      check_error(parse_dma_map(payload));
      check_error(parse_dma_unmap(payload));
      check_error(parse_dma_unmap_reply(payload));
      break;
    case 10:
      with_data(parse_dma_write_request(payload), payload);
      with_data(parse_dma_read_reply(payload), payload);
      check_error(parse_dma_read_request(payload));
      check_error(parse_dma_write_reply(payload));
      break;
    case 11:
      with_data(parse_device_feature(payload), payload);
      break;
    case 12:
      with_data(parse_mig_data_write_request(payload), payload);
      with_data(parse_mig_data_read_reply(payload), payload);
      check_error(parse_mig_data_read_request(payload));
      break;
    case 13:
      check_error(parse_region_io_fds_request(payload));
      check_error(parse_region_info_request(payload));
      break;
    default:
      check_error(parse_version(payload));
      break;
  }
  return 0;
}
