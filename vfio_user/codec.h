#pragma once

// Builds and parses every message. Building never fails; parsing checks every length and every
// number that another field depends on, and answers an Error of Kind::protocol with EINVAL that
// names the command. What a value means for the device (is this region there?) is for the caller to
// judge.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/uio.h>

#include "vfio_user/result.h"
#include "vfio_user/sparse_area.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

/// A message to send: the header and the fixed part are held here, data is borrowed from the caller
/// until the message has been sent. Cheap to make: no allocation.
class Message final {
 public:
  static constexpr std::size_t kMaxFixed = 64;

  /// `flags`: 0 or wire::kNoReply.
  static Message command(std::uint16_t id, wire::Command command, std::uint32_t flags = 0);
  /// A successful reply to `request`.
  static Message reply(const wire::Header& request);
  /// A header-only error reply; `error` is a positive errno.
  static Message error_reply(const wire::Header& request, int error);

  /// Appends a structure to the fixed part. At most kMaxFixed bytes in all, and before data.
  template <wire::Struct T>
  Message& add(const T& value) {
    return add_bytes(std::as_bytes(std::span(&value, 1)));
  }
  /// Appends bytes that stay with the caller. Once a message.
  Message& borrow(std::span<const std::byte> data);

  [[nodiscard]] const wire::Header& header() const { return header_; }
  /// To be handed to Transport::send; valid as long as this object is neither moved nor changed.
  [[nodiscard]] std::array<iovec, 3> parts() const;

 private:
  Message& add_bytes(std::span<const std::byte> bytes);

  wire::Header header_{};
  std::array<std::byte, kMaxFixed> fixed_;
  std::size_t fixed_size_ = 0;
  std::span<const std::byte> data_;
};

/// Copies a structure out of the start of `bytes`; nothing when they are too few.
template <wire::Struct T>
std::optional<T> read_struct(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// The errno of an error reply, made sane: 1 to 4095, EIO for 0 and for anything else.
int error_of(const wire::Header& reply);

// ---- Commands that both sides parse alike -------------------------------------------------------

/// VERSION, request or reply. `json` is without its NUL, empty when there was none.
struct VersionMessage {
  wire::Version version{};
  std::string_view json;
};
/// A text without a NUL at its end, or with one before it, is an error.
Result<VersionMessage> parse_version(std::span<const std::byte> payload);

/// The fixed structure and the bytes behind it.
template <class T>
struct WithData {
  T fixed{};
  std::span<const std::byte> data;
};

// ---- Requests -----------------------------------------------------------------------------------
// A payload is the structure exactly unless data belongs to it; argsz is at least the structure.

Result<wire::DmaMap> parse_dma_map(std::span<const std::byte> payload);
/// Without kUnmapDirtyBitmap the payload is the structure exactly; with it a DirtyBitmap follows.
struct DmaUnmapRequest {
  wire::DmaUnmap fixed{};
  std::optional<wire::DirtyBitmap> bitmap;
};
Result<DmaUnmapRequest> parse_dma_unmap(std::span<const std::byte> payload);
Result<wire::DeviceInfo> parse_device_info_request(std::span<const std::byte> payload);
Result<wire::RegionInfo> parse_region_info_request(std::span<const std::byte> payload);
Result<wire::RegionIoFds> parse_region_io_fds_request(std::span<const std::byte> payload);
Result<wire::IrqInfo> parse_irq_info_request(std::span<const std::byte> payload);
/// Checks that the flags name one kind of data and one action, that start + count does not wrap,
/// that bool data has count bytes, and that other kinds have none. `data` is the bool bytes.
Result<WithData<wire::SetIrqs>> parse_set_irqs(std::span<const std::byte> payload);
Result<wire::RegionAccess> parse_region_read_request(std::span<const std::byte> payload);
/// `data` has exactly count bytes.
Result<WithData<wire::RegionAccess>> parse_region_write_request(std::span<const std::byte> payload);
/// Each entry's count is 1 to 8; the entries fill the payload exactly.
Result<std::vector<wire::WriteMultiEntry>> parse_write_multi_request(
    std::span<const std::byte> payload);
Result<wire::DmaAccess> parse_dma_read_request(std::span<const std::byte> payload);
/// `data` has exactly count bytes.
Result<WithData<wire::DmaAccess>> parse_dma_write_request(std::span<const std::byte> payload);
Result<WithData<wire::DeviceFeature>> parse_device_feature(std::span<const std::byte> payload);
Result<wire::MigData> parse_mig_data_read_request(std::span<const std::byte> payload);
/// `data` has exactly size bytes.
Result<WithData<wire::MigData>> parse_mig_data_write_request(std::span<const std::byte> payload);

// ---- Successful replies -------------------------------------------------------------------------
// Trailing bytes are tolerated where the protocol lets a structure grow (those with an argsz).

/// 24 bytes, or nothing: servers that never set up DMA answer with the header alone.
Result<std::optional<wire::DmaUnmap>> parse_dma_unmap_reply(std::span<const std::byte> payload);
Result<wire::DeviceInfo> parse_device_info_reply(std::span<const std::byte> payload);

struct RegionInfoReply {
  wire::RegionInfo fixed{};
  bool sparse = false;  ///< a sparse-mmap capability was there (perhaps with no area)
  std::vector<SparseArea> areas;
};
/// Walks the capability chain, if the flag says that there is one and argsz that it is included.
/// Offsets must rise, so a chain cannot loop; unknown capabilities are skipped; at most
/// `kMaxCapabilityChain` of them and `kMaxSparseAreas` areas are accepted. Areas are not judged.
Result<RegionInfoReply> parse_region_info_reply(std::span<const std::byte> payload);
inline constexpr std::size_t kMaxCapabilityChain = 64;
inline constexpr std::size_t kMaxSparseAreas = 4096;

/// An entry of DEVICE_GET_REGION_IO_FDS, whichever of the two layouts it came in.
struct IoFdInfo {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint32_t fd_index = 0;
  wire::IoFdType type =
      wire::IoFdType::ioeventfd;  ///< may hold a value that the enum does not name
  std::uint32_t flags = 0;
  std::uint64_t datamatch = 0;
};
struct RegionIoFdsReply {
  wire::RegionIoFds fixed{};
  std::vector<IoFdInfo> entries;  ///< empty when argsz says that they did not fit
};
/// The stride is (argsz - 16) / count and must be 40 or 48.
Result<RegionIoFdsReply> parse_region_io_fds_reply(std::span<const std::byte> payload);

Result<wire::IrqInfo> parse_irq_info_reply(std::span<const std::byte> payload);
/// `data` has exactly count bytes. A count of 0 may come as a header alone.
Result<WithData<wire::RegionAccess>> parse_region_read_reply(std::span<const std::byte> payload);
Result<wire::RegionAccess> parse_region_write_reply(std::span<const std::byte> payload);
Result<wire::WriteMulti> parse_write_multi_reply(std::span<const std::byte> payload);
/// `data` has exactly count bytes.
Result<WithData<wire::DmaAccess>> parse_dma_read_reply(std::span<const std::byte> payload);
Result<wire::DmaAccess> parse_dma_write_reply(std::span<const std::byte> payload);
/// `data` has at least size bytes and is cut to it: a size below the request ends the stream.
Result<WithData<wire::MigData>> parse_mig_data_read_reply(std::span<const std::byte> payload);

// ---- Replies with a tail, as a server makes them
// --------------------------------------------------

/// The bytes behind wire::RegionInfo: a sparse-mmap capability, ready to be borrowed by a Message.
std::vector<std::byte> encode_sparse_areas(std::span<const SparseArea> areas);
/// The bytes behind wire::RegionIoFds, in the 40-byte layout of the protocol's text or, if `wide`,
/// in libvfio-user's of 48 bytes.
std::vector<std::byte> encode_io_fds(std::span<const IoFdInfo> entries, bool wide);

}  // namespace outboard::vfio_user
