#include "devices/page_guard.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/host_page.h"

namespace outboard::devices {
namespace {

// Written under `registrations`, read by anybody, in a signal handler too. `end` is written last
// when an entry comes and first when it goes; 0: the entry is free.
struct Entry {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<int> file{-1};
  std::atomic<std::uint64_t> file_offset{0};
  std::atomic<int> lost{-1};
  std::atomic<std::uintptr_t> shared_until{0};  // from here on its pages are private already
};

// Not destroyed at exit: a thread may still run then.
constinit std::array<Entry, GuardedPages::kMost> entries;
constinit std::atomic<std::size_t> in_use_below{0};
constinit std::atomic<std::uint64_t> replaced{0};
constinit std::mutex registrations;
struct sigaction before {};  // written once, before the handler is installed

// The rest of an entry's pages from `from` on becomes zero pages. Async-signal-safe.
bool replace(Entry& entry, std::uintptr_t from, std::uintptr_t to) {
  void* const at = reinterpret_cast<void*>(from);
  if (::mmap(at, to - from, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
             0) == MAP_FAILED) {
    return false;
  }
  if (to == entry.end.load()) entry.shared_until.store(from);
  replaced.fetch_add(1);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = ::write(entry.lost.load(), &one, sizeof one);
  return true;
}

// Where the entry's file ends in memory: its first page that is gone. Async-signal-safe.
std::uintptr_t first_gone(const Entry& entry, std::uintptr_t begin, std::uintptr_t end) {
  struct stat status {};
  if (::fstat(entry.file.load(), &status) != 0) return end;
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t offset = entry.file_offset.load();
  if (size <= offset) return begin;
  const std::uint64_t left = (size - offset + host_page() - 1) & ~(host_page() - 1);
  return left < end - begin ? begin + left : end;
}

void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const int saved = errno;
  const auto page = reinterpret_cast<std::uintptr_t>(info->si_addr) & ~(host_page() - 1);
  // Sent by kill() and the like it has no address.
  const std::size_t count = info->si_code > 0 ? in_use_below.load() : 0;
  for (std::size_t i = 0; i < count; ++i) {
    Entry& entry = entries[i];
    const std::uintptr_t end = entry.end.load();
    const std::uintptr_t begin = entry.begin.load();
    if (page < begin || page >= end) continue;
    const std::uintptr_t gone = first_gone(entry, begin, end);
    // A page inside the file is one whose memory has failed: it alone is replaced, if the mapping
    // can be cut there (huge pages cannot).
    const bool done = gone <= page
                          ? replace(entry, gone, end)
                          : replace(entry, page, page + host_page()) || replace(entry, begin, end);
    errno = saved;
    if (done) return;
    break;
  }
  // Not ours. Back in the instruction that failed, the signal comes again, to who was here before.
  ::sigaction(signal, &before, nullptr);
  if (info->si_code <= 0) ::raise(signal);
  errno = saved;
}

void install_handler() {
  static const bool once = [] {
    static_cast<void>(host_page());  // asked for here, not first in the handler
    ::sigaction(SIGBUS, nullptr, &before);
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return ::sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  static_cast<void>(once);
}

}  // namespace

GuardedPages::GuardedPages(std::span<std::byte> pages, int file, std::uint64_t file_offset,
                           int lost) {
  install_handler();
  const std::lock_guard lock(registrations);
  for (std::size_t i = 0; i < kMost; ++i) {
    Entry& entry = entries[i];
    if (entry.end.load() != 0) continue;
    entry.file.store(file);
    entry.file_offset.store(file_offset);
    entry.lost.store(lost);
    const auto begin = reinterpret_cast<std::uintptr_t>(pages.data());
    entry.begin.store(begin);
    entry.shared_until.store(begin + pages.size());
    entry.end.store(begin + pages.size());
    if (in_use_below.load() <= i) in_use_below.store(i + 1);
    index_ = i;
    return;
  }
}

GuardedPages::~GuardedPages() {
  if (index_ == kNone) return;
  const std::lock_guard lock(registrations);
  entries[index_].end.store(0);
}

GuardedPages::GuardedPages(GuardedPages&& other) noexcept
    : index_(std::exchange(other.index_, kNone)) {}

GuardedPages& GuardedPages::operator=(GuardedPages&& other) noexcept {
  std::swap(index_, other.index_);
  return *this;
}

std::uint64_t repair_pages() {
  const std::lock_guard lock(registrations);  // no entry goes meanwhile
  const std::size_t count = in_use_below.load();
  for (std::size_t i = 0; i < count; ++i) {
    Entry& entry = entries[i];
    const std::uintptr_t end = entry.end.load();
    if (end == 0) continue;
    const std::uintptr_t gone = first_gone(entry, entry.begin.load(), end);
    if (gone < entry.shared_until.load()) replace(entry, gone, end);
  }
  return replaced.load();
}

std::uint64_t give_up_pages() {
  const std::lock_guard lock(registrations);
  const std::size_t count = in_use_below.load();
  for (std::size_t i = 0; i < count; ++i) {
    Entry& entry = entries[i];
    const std::uintptr_t end = entry.end.load();
    const std::uintptr_t begin = entry.begin.load();
    if (end == 0 || entry.shared_until.load() == begin) continue;
    const int seals = ::fcntl(entry.file.load(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) replace(entry, begin, end);
  }
  return replaced.load();
}

}  // namespace outboard::devices
