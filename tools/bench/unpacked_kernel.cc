#include "tools/bench/unpacked_kernel.h"

#include <span>
#include <string_view>

#include <fmt/core.h>

#include "boot/bzimage.h"
#include "boot/decompress.h"
#include "tools/bench/private_folder.h"

namespace outboard::bench {
namespace {

constexpr std::uint64_t kLargest = 1U << 30;

}  // namespace

Result<bool> unpack_kernel(const std::string& kernel, const std::string& to) {
  const std::string file = read_file(kernel);
  if (file.empty())
    return fail(ExitStatus::missing, fmt::format("the kernel {} cannot be read", kernel));
  const auto bytes = std::as_bytes(std::span(file));
  if (!boot::is_bzimage(bytes)) return false;
  const auto image = boot::parse_bzimage(bytes);
  if (!image)
    return fail(ExitStatus::missing, fmt::format("{}: {}", kernel, image.error().message));
  const auto compression = boot::detect_compression(image->payload);
  if (!compression || image->unpacked_size > kLargest)
    return fail(ExitStatus::missing, fmt::format("{}: its payload cannot be unpacked", kernel));
  const auto unpacked = boot::decompress(*compression, image->payload, image->unpacked_size);
  if (!unpacked)
    return fail(ExitStatus::missing, fmt::format("{}: {}", kernel, unpacked.error().message));
  const auto elf = unpacked->span();
  if (auto written =
          write_file(to, std::string_view(reinterpret_cast<const char*>(elf.data()), elf.size()));
      !written)
    return tl::unexpected(written.error());
  return true;
}

}  // namespace outboard::bench
