#include "boot/elf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include <elf.h>

#include "boot/bytes.h"
#include "boot/start.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::uint32_t kXenElfNotePhys32Entry = 18;  // Xen public/elfnote.h
constexpr std::uint64_t kMaximumAddress = std::uint64_t{1} << 52;

std::string machine_name(std::uint16_t machine) {
  switch (machine) {
    case EM_386:
      return "32-bit x86";
    case EM_ARM:
      return "32-bit arm";
    case EM_AARCH64:
      return "arm64";
    case EM_RISCV:
      return "RISC-V";
    case EM_PPC64:
      return "ppc64";
    case EM_S390:
      return "s390x";
    case EM_LOONGARCH:
      return "LoongArch";
    default:
      return "machine " + std::to_string(machine);
  }
}

template <class T>
bool read_struct(std::span<const std::byte> file, std::uint64_t offset, T& out) {
  if (!fits(offset, sizeof(T), file.size())) return false;
  std::memcpy(&out, file.data() + offset, sizeof(T));
  return true;
}

// The entry of the PVH note in one PT_NOTE segment. A note that does not fit ends the search: notes
// cannot be resynchronised.
std::optional<std::uint64_t> find_pvh_note(std::span<const std::byte> notes,
                                           std::uint64_t alignment) {
  std::uint64_t offset = 0;
  Elf64_Nhdr note;
  while (read_struct(notes, offset, note)) {
    const std::uint64_t name_at = offset + sizeof note;
    const std::uint64_t desc_at = align_up(name_at + note.n_namesz, alignment);
    if (!fits(name_at, note.n_namesz, notes.size()) ||
        !fits(desc_at, note.n_descsz, notes.size())) {
      return std::nullopt;
    }
    const bool xen = note.n_namesz == 4 && has_magic(notes, name_at, std::string_view("Xen\0", 4));
    if (xen && note.n_type == kXenElfNotePhys32Entry) {
      if (note.n_descsz == 8) return load<std::uint64_t>(notes, desc_at);
      if (note.n_descsz == 4) return load<std::uint32_t>(notes, desc_at);
      return std::nullopt;
    }
    offset = align_up(desc_at + note.n_descsz, alignment);
  }
  return std::nullopt;
}

Result<Elf64_Ehdr> check_header(std::span<const std::byte> file) {
  Elf64_Ehdr header;
  if (file.size() < EI_NIDENT) return fail("is truncated within its ELF header; copy it again");
  if (load<std::uint8_t>(file, EI_DATA) != ELFDATA2LSB) {
    return fail("is a big-endian ELF file; this machine needs an x86-64 kernel");
  }
  if (load<std::uint8_t>(file, EI_CLASS) != ELFCLASS64) {
    return fail("is a 32-bit ELF file; this machine needs an x86-64 vmlinux or bzImage");
  }
  if (!read_struct(file, 0, header)) {
    return fail("is truncated within its ELF header; copy it again");
  }
  if (header.e_machine != EM_X86_64) {
    return fail("is an ELF file for " + machine_name(header.e_machine) +
                "; this machine needs an x86-64 vmlinux or bzImage");
  }
  if (header.e_type == ET_REL) {
    return fail("is an ELF object file or kernel module; give the vmlinux or bzImage itself");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return fail("is an ELF file but no executable (a core dump?); give a vmlinux or bzImage");
  }
  if (header.e_phnum == 0 || header.e_phentsize != sizeof(Elf64_Phdr)) {
    return fail("is an ELF file with no usable program headers; give a linked vmlinux");
  }
  if (!fits(header.e_phoff, std::uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), file.size())) {
    return fail("is truncated: its ELF program headers lie beyond the end; copy it again");
  }
  return header;
}

}  // namespace

bool is_elf(std::span<const std::byte> file) {
  return has_magic(file, 0, "\177ELF");
}

Result<ElfKernel> parse_elf(std::span<const std::byte> file) {
  const auto header = check_header(file);
  if (!header) return tl::make_unexpected(header.error());

  ElfKernel kernel;
  for (std::uint64_t i = 0; i < header->e_phnum; ++i) {
    Elf64_Phdr program;
    if (!read_struct(file, header->e_phoff + i * sizeof program, program)) {
      return fail("is truncated within its ELF program headers; copy it again");
    }
    if (program.p_type != PT_LOAD && program.p_type != PT_NOTE) continue;
    if (!fits(program.p_offset, program.p_filesz, file.size())) {
      return fail("is truncated: an ELF segment ends beyond the end of the file; copy it again");
    }
    if (program.p_type == PT_NOTE) {
      if (kernel.pvh_entry) continue;
      kernel.pvh_entry = find_pvh_note(file.subspan(program.p_offset, program.p_filesz),
                                       program.p_align == 8 ? 8 : 4);
      continue;
    }
    if (program.p_memsz == 0) continue;
    if (program.p_memsz < program.p_filesz || program.p_paddr >= kMaximumAddress ||
        program.p_memsz >= kMaximumAddress) {
      return fail("is a damaged ELF file: a segment's sizes or address are impossible");
    }
    kernel.segments.push_back(
        {program.p_offset, program.p_filesz, program.p_paddr, program.p_memsz});
    kernel.end = std::max(kernel.end, program.p_paddr + program.p_memsz);
  }
  if (kernel.segments.empty()) {
    return fail("is an ELF file with nothing to load; give a linked vmlinux");
  }
  return kernel;
}

Result<void> place_elf(const ElfKernel& kernel, std::span<const std::byte> file,
                       std::span<std::byte> ram) {
  for (const ElfSegment& segment : kernel.segments) {
    if (segment.address < kKernelFloor) {
      return fail("has a segment at " + hex(segment.address) +
                  ", where the boot data lies; link it at 1 MiB or above");
    }
  }
  if (kernel.end > ram.size()) {
    return fail("is too large: it needs " + mebibytes(kernel.end) +
                " of memory and the machine has " + mebibytes(ram.size()) +
                " below the PCI hole; raise the machine's memory");
  }
  for (const ElfSegment& segment : kernel.segments) {
    const auto target = ram.subspan(segment.address, segment.memory_size);
    if (segment.file_size != 0) {
      std::memcpy(target.data(), file.data() + segment.file_offset, segment.file_size);
    }
    std::memset(target.data() + segment.file_size, 0, segment.memory_size - segment.file_size);
  }
  return {};
}

}  // namespace outboard::boot
