// A listening Unix socket that appears under its name only once it takes connections, and goes
// with the object.
#pragma once

#include <string>

#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"
#include "vmm/box/breach.h"

namespace outboard::nvme {

class PublishedSocket {
 public:
  // A socket file that nobody listens on is replaced; anything else in the way is an error.
  // `path` may name a descriptor ("fd:5") that listens already, which is taken over.
  static vfio_user::Result<PublishedSocket> create(const std::string& path);
  ~PublishedSocket();
  PublishedSocket(PublishedSocket&& other) noexcept;
  PublishedSocket(const PublishedSocket&) = delete;
  PublishedSocket& operator=(const PublishedSocket&) = delete;
  PublishedSocket& operator=(PublishedSocket&&) = delete;

  vfio_user::UniqueFd take_fd() { return std::move(fd_); }

 private:
  PublishedSocket(vfio_user::UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)), removed_(path_) {}

  vfio_user::UniqueFd fd_;
  std::string path_;
  box::RemovedOnBreach removed_;
};

}  // namespace outboard::nvme
