#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tools/nvme/file_backends.h"
#include "tools/nvme/file_step.h"

namespace outboard::nvme {
namespace {

class ThreadBackend final : public Backend {
 public:
  ThreadBackend(std::unique_ptr<FileImage> image, unsigned threads,
                const std::function<void()>& started)
      : image_(std::move(image)), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    for (unsigned i = 0; i < threads; ++i) {
      threads_.emplace_back([this, started] {
        if (started) started();
        serve();
      });
    }
  }
  ~ThreadBackend() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    close(event_);
  }
  ThreadBackend(const ThreadBackend&) = delete;
  ThreadBackend& operator=(const ThreadBackend&) = delete;

  u64 size() const override { return image_->size(); }
  const char* describe() const override {
    return image_->direct() ? "threads, O_DIRECT" : "threads, page cache";
  }
  bool volatile_cache() const override { return true; }
  u32 memory_alignment() const override { return image_->memory_alignment(); }
  u64 allocated() const override { return image_->allocated(); }
  void set_block_size(u32 bytes) override { image_->set_block_size(bytes); }

  void submit(BackendRequest& request) override {
    request.attempt = request.retries = 0;
    request.progress = 0;
    {
      const std::lock_guard lock(mutex_);
      todo_.push_back(&request);
    }
    wake_.notify_one();
  }
  void kick() override {}

  void reap(std::vector<BackendRequest*>& done) override {
    // Cleared before the list is taken: what is added afterwards signals again.
    eventfd_t count;
    eventfd_read(event_, &count);
    const std::lock_guard lock(mutex_);
    done.insert(done.end(), done_.begin(), done_.end());
    done_.clear();
  }

  void wait() override {
    pollfd fd{event_, POLLIN, 0};
    while (poll(&fd, 1, -1) < 0 && errno == EINTR) {
    }
  }

  int poll_fd() const override { return event_; }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !todo_.empty(); });
      if (todo_.empty()) return;
      BackendRequest& request = *todo_.front();
      todo_.pop_front();
      lock.unlock();
      while (!take_result(request, call(next_step(request)))) {
      }
      lock.lock();
      done_.push_back(&request);
      eventfd_write(event_, 1);
    }
  }

  long call(const FileStep& step) const {
    const int fd = image_->fd();
    const auto offset = static_cast<off_t>(step.offset);
    const auto count = static_cast<int>(step.count);
    ssize_t result = -1;
    switch (step.call) {
      case FileStep::Call::readv:
        result = preadv2(fd, step.parts, count, offset, step.flags);
        break;
      case FileStep::Call::writev:
        result = pwritev2(fd, step.parts, count, offset, step.flags);
        break;
      case FileStep::Call::sync:
        result = fdatasync(fd);
        break;
      case FileStep::Call::allocate:
        result = fallocate(fd, step.flags, offset, static_cast<off_t>(step.length));
        break;
    }
    return result < 0 ? -errno : result;
  }

  std::unique_ptr<FileImage> image_;
  int event_;
  std::mutex mutex_;  // guards what follows but the threads
  std::condition_variable wake_;
  std::deque<BackendRequest*> todo_;
  std::vector<BackendRequest*> done_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Backend> make_thread_backend(std::unique_ptr<FileImage> image, unsigned threads,
                                             const std::function<void()>& started) {
  return std::make_unique<ThreadBackend>(std::move(image), threads, started);
}

}  // namespace outboard::nvme
