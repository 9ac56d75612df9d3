#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "vfio_user/result.h"

namespace outboard::vfio_user {

/// Who speaks: decides how the twin socket is written down.
enum class Role { client, server };

/// The deprecated key "migration"; parsed and checked, acted upon by nobody here.
struct MigrationCapability {
  std::uint64_t pgsize = 4096;
  std::uint64_t max_bitmap_size = 256 * 1024;
};

/// The server's key "resume", for a client that has asked with `{"supported": true}`: it can go on
/// where a predecessor that died stopped. A client that comes back sends no DEVICE_RESET then,
/// repeats what was not answered, and may signal every vector once without cause.
struct ResumeCapability {
  std::string id;  ///< names the device's state: 32 hexadecimal digits
  bool resumed =
      false;  ///< this process took the state over from a client that did not say goodbye
  bool operator==(const ResumeCapability&) const = default;
};

/// One side's capabilities, as VERSION carries them. A freshly made value holds the defaults that
/// the protocol gives to absent keys.
struct Capabilities {
  std::uint32_t max_msg_fds = 1;                      ///< fds this side takes in one message
  std::uint64_t max_data_xfer_size = 1024 * 1024;     ///< bytes of data in one message; never 0
  std::uint32_t max_dma_maps = 65535;                 ///< live DMA windows
  std::uint64_t pgsizes = 4096;                       ///< bitmap of page sizes for DMA_MAP; never 0
  bool write_multiple = false;                        ///< REGION_WRITE_MULTI is understood
  bool twin_socket = false;                           ///< asked for (client) or granted (server)
  std::optional<std::uint32_t> twin_socket_fd_index;  ///< server's reply only
  std::optional<MigrationCapability> migration;       ///< never written
  bool resume_supported = false;                      ///< asked for (client); never the server's
  std::optional<ResumeCapability> resume;             ///< server's reply only
};

/// Text beyond this is refused before it is parsed.
inline constexpr std::size_t kMaxCapabilitiesJson = 64 * 1024;
/// Deeper nesting is refused before it is parsed.
inline constexpr std::size_t kMaxCapabilitiesDepth = 16;

/// The JSON object for VERSION, without a NUL. A server's is compact enough for clients that have
/// no more room than the ~200 bytes of their own request.
std::string to_json(const Capabilities& capabilities, Role role);

/// Reads the JSON of a VERSION message (no NUL). Empty text means defaults. Unknown keys are
/// ignored; wrong types, negative or fractional numbers, 0 where it makes no sense, invalid UTF-8
/// and oversized or too deep text are errors of Kind::protocol with EINVAL that name the key.
Result<Capabilities> parse_capabilities(std::string_view json);

}  // namespace outboard::vfio_user
