// Puts an x86-64 kernel into guest memory: an ELF with a PVH note, or a bzImage, which is unpacked
// here on the host or entered by its own 64-bit protocol.
//
// Pure: reads the file's bytes, writes guest memory, keeps nothing. May be called from any thread;
// the caller owns both spans. The bytes may be hostile: every offset and size is checked, and
// nothing is allocated on the word of a header beyond the size of the guest's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "boot/result.h"
#include "boot/unpacked_store.h"

namespace outboard::boot {

// How the first vCPU enters the kernel.
enum class Protocol {
  pvh,      // 32-bit protected mode, EBX = hvm_start_info (Xen's PVH boot ABI)
  linux64,  // long mode, RSI = boot_params (Linux Documentation/arch/x86/boot.rst, 64-bit protocol)
  arm64,    // EL1, no MMU, X0 = device tree (Linux Documentation/arch/arm64/booting.rst)
};

// What the user asked for.
enum class Entry {
  automatic,  // x86-64: PVH when the (unpacked) ELF has the note, else the bzImage's 64-bit
              // protocol
  pvh,        // PVH or an error
  bzimage,    // the bzImage's 64-bit protocol or an error; the kernel unpacks and places itself
              // (KASLR)
};

struct LoadedKernel {
  Protocol protocol = Protocol::pvh;
  std::uint64_t entry = 0;  // guest-physical address of the first instruction
  std::uint64_t end = 0;    // first free byte above the image and its bss (or its init_size)
  std::string said;  // one line for the log when something was decided for the user, or empty
  std::vector<std::byte> setup_header;  // of a bzImage: its bytes from offset 0x1f1 on; else empty
  std::string compression;              // "lz4", "zstd", …; empty for a plain ELF
  std::string version;                  // "6.1.0-56-cloud-amd64 (…) …" of a bzImage, else empty
};

// Loads `file` into `ram`, whose first byte is guest-physical address 0 and which ends where the
// guest's low memory ends. Memory below 1 MiB is left to place_boot_data() and the ACPI tables: an
// image that wants it is refused. Errors name what the bytes are and the remedy. `store`, if there
// is one, is asked before a payload is unpacked, and told after.
[[nodiscard]] Result<LoadedKernel> load_kernel(std::span<const std::byte> file,
                                               std::span<std::byte> ram, Entry entry,
                                               UnpackedStore* store = nullptr);

// Where load_kernel() will write most of the image, as far as the headers tell before anything is
// unpacked: for whoever makes that memory present beforehand. Inside [0, ram_size); empty if
// unknown.
struct Extent {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
};
[[nodiscard]] Extent expected_extent(std::span<const std::byte> file, std::uint64_t ram_size,
                                     Entry entry);

}  // namespace outboard::boot
