#pragma once

// Least DMA: which guest memory each device's server may use (`device.dma`), and how guest memory
// is divided into files for it. A file descriptor reaches all of its file whatever window came with
// it, so memory that not every server may use alike is a file of its own. Pure, for any thread.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/dma_window.h"
#include "vmm/guest_memory.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// What a server is told of, and what it gets with it.
struct PlannedWindow {
  std::uint64_t address = 0;  // guest-physical
  std::uint64_t size = 0;     // bytes
  DmaAccess access = DmaAccess::read_write;
  std::size_t file = 0;           // index of the file it lies in
  std::uint64_t file_offset = 0;  // in that file
  // The device may use all of that file in this one way: the server may have its descriptor. Else
  // it asks by DMA_READ and DMA_WRITE.
  bool whole_file = true;
};

// Why `ranges` cannot be had of this memory, with the remedy; `unit` is what servers can map (see
// dma_unit()).
[[nodiscard]] std::optional<std::string> dma_fault(std::span<const DmaRange> ranges,
                                                   std::span<const RamWindow> ram,
                                                   std::uint64_t unit);

// Bases and sizes of ranges are multiples of it: 2 MiB, SPDK maps nothing smaller, or a page.
[[nodiscard]] std::uint64_t dma_unit(PageSize page_size);

// The files of the memory `ram`, whose ranges have no fault: as few as the devices permit, one
// where all may use all of it, or where the memory is not `divisible`, being given as one file.
[[nodiscard]] std::vector<FilePlan> plan_files(std::span<const RamWindow> ram,
                                               std::span<const DeviceConfig> devices,
                                               bool divisible = true);

// The windows of a device, in ascending order, as few as the files permit.
[[nodiscard]] std::vector<PlannedWindow> plan_windows(std::span<const RamWindow> ram,
                                                      std::span<const FilePlan> files,
                                                      std::span<const DmaRange> ranges);

// The same for the client of a server. A window whose descriptor would give more than the window
// comes without, and the server asks by message. `memory` outlives them.
[[nodiscard]] std::vector<vfio_user::DmaWindow> dma_windows(const GuestMemory& memory,
                                                            std::span<const DmaRange> ranges);

// "0x0 +64M read-write, ...", or "none".
[[nodiscard]] std::string dma_text(std::span<const PlannedWindow> windows);

}  // namespace outboard::vmm
