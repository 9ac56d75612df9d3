#include "tools/nvme/saved_windows.h"

#include <algorithm>

namespace outboard::nvme {

using vfio_user::ServerWindow;

bool SavedWindows::fits(const ServerWindow& window) const {
  if (saved_ == nullptr || find(window) >= 0) return true;
  return std::none_of(saved_->windows.begin(), saved_->windows.end(),
                      [&](const SavedWindow& saved) {
                        return saved.live != 0 && saved.address < window.address + window.size &&
                               window.address < saved.address + saved.size;
                      });
}

int SavedWindows::find(const ServerWindow& window) const {
  for (u32 i = 0; i < kMaxSavedWindows; ++i) {
    const SavedWindow& saved = saved_->windows[i];
    if (saved.live != 0 && saved.address == window.address && saved.size == window.size &&
        saved.device == window.file_device && saved.inode == window.file_inode &&
        saved.offset == window.file_offset && (saved.writable != 0) == window.writable) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

void SavedWindows::add(const ServerWindow& window) {
  if (saved_ == nullptr) return;
  if (const int at = find(window); at >= 0) {
    here_.set(static_cast<std::size_t>(at));
    return;
  }
  const auto place = std::find_if(saved_->windows.begin(), saved_->windows.end(),
                                  [](const SavedWindow& saved) { return saved.live == 0; });
  if (place == saved_->windows.end() || window.file_inode == 0) {
    saved_->windows_lost = 1;
    return;
  }
  *place = {window.address,     window.size, window.file_device,       window.file_inode,
            window.file_offset, 0,           window.writable ? 1u : 0u};
  keep_order();
  place->live = 1;
  here_.set(static_cast<std::size_t>(place - saved_->windows.begin()));
}

void SavedWindows::remove(const ServerWindow& window, bool forget) {
  if (saved_ == nullptr) return;
  const int at = find(window);
  if (at < 0) return;
  here_.reset(static_cast<std::size_t>(at));
  if (forget) saved_->windows[static_cast<std::size_t>(at)].live = 0;
}

void SavedWindows::clear() {
  if (saved_ == nullptr) return;
  here_.reset();
  for (SavedWindow& window : saved_->windows) window.live = 0;
  saved_->windows_lost = 0;
}

bool SavedWindows::cover(u64 address, u64 size, bool write) const {
  while (size != 0) {
    u64 reach = 0;
    for (u32 i = 0; i < kMaxSavedWindows; ++i) {
      const SavedWindow& saved = saved_->windows[i];
      if (!here_[i] || address < saved.address || address - saved.address >= saved.size) continue;
      if (write && saved.writable == 0) continue;
      reach = saved.size - (address - saved.address);
      break;
    }
    if (reach == 0) return false;
    const u64 step = std::min(size, reach);
    address += step;
    size -= step;
  }
  return true;
}

}  // namespace outboard::nvme
