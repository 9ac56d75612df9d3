// The windows of guest memory in the state file: which files a predecessor's guest memory lay in,
// and which of them are here again. Without a state file it does nothing.
#pragma once

#include <bitset>

#include "tools/nvme/saved_state.h"
#include "vfio_user/server.h"

namespace outboard::nvme {

class SavedWindows {
 public:
  explicit SavedWindows(SavedState* saved) : saved_(saved) {}

  // False: a saved window lies there, and this is another file or another place of it.
  bool fits(const vfio_user::ServerWindow& window) const;
  void add(const vfio_user::ServerWindow& window);
  // `forget`: it is no window any more; else it may come back.
  void remove(const vfio_user::ServerWindow& window, bool forget);
  void clear();

  // Whether windows that are here hold all of [address, address + size).
  bool cover(u64 address, u64 size, bool write) const;

 private:
  int find(const vfio_user::ServerWindow& window) const;

  SavedState* saved_;
  std::bitset<kMaxSavedWindows> here_;
};

}  // namespace outboard::nvme
