#include <array>
#include <cerrno>
#include <cstring>
#include <deque>

#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/nvme/file_backends.h"
#include "tools/nvme/file_step.h"

namespace outboard::nvme {
namespace {

constexpr unsigned kEntries = 1024;
constexpr std::array<u8, 4> kOperations = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                           IORING_OP_FALLOCATE};

class UringBackend final : public Backend {
 public:
  explicit UringBackend(std::unique_ptr<FileImage> image) : image_(std::move(image)) {}
  ~UringBackend() override {
    if (ready_) io_uring_queue_exit(&ring_);
  }
  UringBackend(const UringBackend&) = delete;
  UringBackend& operator=(const UringBackend&) = delete;

  // 0 or a positive errno.
  int open() {
    // Disabled until it is restricted to what is used here: a seccomp filter does not see what a
    // ring is asked for, and one could be asked to open files and to connect.
    int error = io_uring_queue_init(kEntries, &ring_, IORING_SETUP_R_DISABLED);
    const bool restrictable = error != -EINVAL;  // Linux 5.10
    if (!restrictable) error = io_uring_queue_init(kEntries, &ring_, 0);
    if (error < 0) return -error;
    ready_ = true;
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    bool all = probe != nullptr;
    for (const int op : kOperations) {
      all = all && io_uring_opcode_supported(probe, op) != 0;
    }
    io_uring_free_probe(probe);
    if (!all) return EOPNOTSUPP;
    return restrictable ? restrict() : 0;
  }
  std::unique_ptr<FileImage> take_image() { return std::move(image_); }

  u64 size() const override { return image_->size(); }
  const char* describe() const override {
    return image_->direct() ? "io_uring, O_DIRECT" : "io_uring, page cache";
  }
  bool volatile_cache() const override { return true; }
  u32 memory_alignment() const override { return image_->memory_alignment(); }
  u64 allocated() const override { return image_->allocated(); }
  void set_block_size(u32 bytes) override { image_->set_block_size(bytes); }

  void submit(BackendRequest& request) override {
    request.attempt = request.retries = 0;
    request.progress = 0;
    queue(request);
  }

  void kick() override {
    while (!backlog_.empty()) {
      BackendRequest& request = *backlog_.front();
      if (!prepare(request)) break;
      backlog_.pop_front();
    }
    if (io_uring_sq_ready(&ring_) != 0) io_uring_submit(&ring_);
  }

  void reap(std::vector<BackendRequest*>& done) override {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
      auto& request = *static_cast<BackendRequest*>(io_uring_cqe_get_data(cqe));
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (take_result(request, result)) {
        done.push_back(&request);
      } else {
        queue(request);
      }
    }
    kick();
  }

  void wait() override {
    kick();
    io_uring_cqe* cqe = nullptr;
    while (io_uring_wait_cqe(&ring_, &cqe) == -EINTR) {
    }
  }

  int poll_fd() const override { return ring_.ring_fd; }

 private:
  // 0 or a positive errno.
  int restrict() {
    std::array<io_uring_restriction, kOperations.size()> allowed{};
    for (std::size_t i = 0; i < allowed.size(); ++i) {
      allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
      allowed[i].sqe_op = kOperations[i];
    }
    // Not by liburing's functions, which some of its libraries do not export.
    const auto call = [this](unsigned what, void* argument, std::size_t count) {
      return ::syscall(SYS_io_uring_register, ring_.ring_fd, what, argument, count) == 0;
    };
    return call(IORING_REGISTER_RESTRICTIONS, allowed.data(), allowed.size()) &&
                   call(IORING_REGISTER_ENABLE_RINGS, nullptr, 0)
               ? 0
               : errno;
  }

  void queue(BackendRequest& request) {
    if (!backlog_.empty() || !prepare(request)) backlog_.push_back(&request);
  }

  bool prepare(BackendRequest& request) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
      if (sqe == nullptr) return false;
    }
    const FileStep step = next_step(request);
    const int fd = image_->fd();
    switch (step.call) {
      case FileStep::Call::readv:
        io_uring_prep_readv2(sqe, fd, step.parts, step.count, step.offset, step.flags);
        break;
      case FileStep::Call::writev:
        io_uring_prep_writev2(sqe, fd, step.parts, step.count, step.offset, step.flags);
        break;
      case FileStep::Call::sync:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
      case FileStep::Call::allocate:
        io_uring_prep_fallocate(sqe, fd, step.flags, static_cast<off_t>(step.offset),
                                static_cast<off_t>(step.length));
        break;
    }
    io_uring_sqe_set_data(sqe, &request);
    return true;
  }

  std::unique_ptr<FileImage> image_;
  io_uring ring_{};
  bool ready_ = false;
  std::deque<BackendRequest*> backlog_;
};

}  // namespace

std::unique_ptr<Backend> make_uring_backend(std::unique_ptr<FileImage>& image, std::string& why) {
  auto backend = std::make_unique<UringBackend>(std::move(image));
  if (const int error = backend->open(); error != 0) {
    why = std::strerror(error);
    image = backend->take_image();
    return nullptr;
  }
  return backend;
}

}  // namespace outboard::nvme
