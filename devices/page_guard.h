// Survives a server that shortens a file whose pages are mapped here.
//
// Pages beyond the end of a mapped file answer an access of this process with SIGBUS, and one of
// the guest with EFAULT from KVM_RUN. Both end here: what the file no longer has is replaced by
// private zero pages, and whoever registered the pages is told by an eventfd, to declare the device
// dead. The file's own pages are never touched to find out: a look at its size is enough.
//
// There is one guard a process, as there is one SIGBUS handler a process. The handler is installed
// with the first registration; a SIGBUS that is not about a registered page goes to the handler, or
// the default action, that was there before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::devices {

// A registration of mapped pages, from its making until its end. Any thread may make and end one;
// nobody may be using the pages when it ends.
class GuardedPages final {
 public:
  // Registrations there can be at the same time, over all devices.
  static constexpr std::size_t kMost = 1024;

  GuardedPages() = default;
  // `pages` are `file` mapped shared from `file_offset` on. `lost` is an eventfd that is signalled,
  // perhaps more than once, when some of them are gone. Both descriptors outlive this object.
  GuardedPages(std::span<std::byte> pages, int file, std::uint64_t file_offset, int lost);
  ~GuardedPages();
  GuardedPages(GuardedPages&& other) noexcept;
  GuardedPages& operator=(GuardedPages&& other) noexcept;
  GuardedPages(const GuardedPages&) = delete;
  GuardedPages& operator=(const GuardedPages&) = delete;

  // False: the table was full, nothing is guarded.
  explicit operator bool() const { return index_ != kNone; }

 private:
  static constexpr std::size_t kNone = ~std::size_t{0};
  std::size_t index_ = kNone;
};

// Replaces whatever registered pages are gone by now. Returns how often pages have been replaced
// since the process started: a caller whose access failed tries again when the figure has changed
// since its last failure. Any thread.
std::uint64_t repair_pages();

// Replaces all registered pages whose file its server may shorten, whatever its size is now: for an
// access that goes on failing although no file is short when one looks, because its server cuts it
// and makes it whole again and again. Pages of files sealed against that (F_SEAL_SHRINK) stay.
// Returns the same figure. Any thread.
std::uint64_t give_up_pages();

}  // namespace outboard::devices
