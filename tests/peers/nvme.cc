#include "tests/peers/nvme.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include <sys/mman.h>
#include <unistd.h>

namespace outboard::peers {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kSize = 4 << 20;
constexpr std::uint64_t kSubmission = 0x10000;
constexpr std::uint64_t kCompletion = 0x20000;
constexpr std::uint64_t kData = 0x200000;  // in the second window
constexpr std::uint16_t kEntries = 32;

// NVMe 1.4 §3.1
constexpr std::uint64_t kControllerConfiguration = 0x14;
constexpr std::uint64_t kControllerStatus = 0x1c;
constexpr std::uint64_t kAdminQueueAttributes = 0x24;
constexpr std::uint64_t kAdminSubmissionBase = 0x28;
constexpr std::uint64_t kAdminCompletionBase = 0x30;
constexpr std::uint64_t kSubmissionDoorbell = 0x1000;
constexpr std::uint64_t kCompletionDoorbell = 0x1004;

template <class T>
bool write(vfio_user::Client& client, std::uint64_t at, T value) {
  return client.region_write(0, at, std::as_bytes(std::span(&value, 1))).has_value();
}

std::uint32_t read(vfio_user::Client& client, std::uint64_t at) {
  std::uint32_t value = 0xffffffff;
  const auto got = client.region_read(0, at, std::as_writable_bytes(std::span(&value, 1)));
  return got ? value : 0xffffffff;
}

bool wait_for_ready(vfio_user::Client& client, std::uint32_t ready) {
  const auto deadline = Clock::now() + 20s;
  while ((read(client, kControllerStatus) & 1) != ready) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);  // the server may share this CPU
  }
  return true;
}

}  // namespace

NvmeHost::NvmeHost() : file_(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  if (::ftruncate(file_, kSize) != 0) throw std::runtime_error("ftruncate");
  void* const at = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (at == MAP_FAILED) throw std::runtime_error("mmap");
  memory_ = {static_cast<std::byte*>(at), kSize};
}

NvmeHost::~NvmeHost() {
  ::munmap(memory_.data(), memory_.size());
  ::close(file_);
}

std::vector<vfio_user::DmaWindow> NvmeHost::windows() const {
  constexpr std::uint64_t half = kSize / 2;
  return {{0, half, file_, 0, true, true, memory_.first(half)},
          {half, half, file_, half, true, true, memory_.subspan(half)}};
}

std::string NvmeHost::enable(vfio_user::Client& client, Ring ring) {
  ring_ = std::move(ring);
  tail_ = head_ = 0;
  phase_ = 1;
  if (!write<std::uint32_t>(client, kControllerConfiguration, 0)) return "CC cannot be written";
  if (!wait_for_ready(client, 0)) return "the controller stays ready";
  std::memset(memory_.data() + kCompletion, 0, std::size_t{16} * kEntries);
  if (!write<std::uint32_t>(client, kAdminQueueAttributes, (kEntries - 1) << 16 | (kEntries - 1)) ||
      !write<std::uint64_t>(client, kAdminSubmissionBase, kSubmission) ||
      !write<std::uint64_t>(client, kAdminCompletionBase, kCompletion) ||
      !write<std::uint32_t>(client, kControllerConfiguration, 0x00460001)) {
    return "the admin queues cannot be set";
  }
  return wait_for_ready(client, 1) ? "" : "the controller does not become ready";
}

std::string NvmeHost::identify() {
  std::memset(memory_.data() + kData, 0, 4096);
  std::array<std::uint32_t, 16> entry{};
  entry[0] = 0x06 | static_cast<std::uint32_t>(++command_) << 16;
  entry[6] = kData;
  entry[10] = 1;  // the controller
  std::memcpy(memory_.data() + kSubmission + 64 * std::size_t{tail_}, entry.data(), 64);
  tail_ = static_cast<std::uint16_t>((tail_ + 1) % kEntries);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ring_(kSubmissionDoorbell, tail_);
  const auto deadline = Clock::now() + 20s;
  std::array<std::uint32_t, 4> done{};
  auto* const last =
      reinterpret_cast<std::uint32_t*>(memory_.data() + kCompletion + 16 * std::size_t{head_} + 12);
  while ((std::atomic_ref<std::uint32_t>(*last).load() >> 16 & 1) != phase_) {
    if (Clock::now() > deadline) return "no completion";
    std::this_thread::sleep_for(100us);
  }
  std::memcpy(done.data(), memory_.data() + kCompletion + 16 * std::size_t{head_}, 16);
  head_ = static_cast<std::uint16_t>((head_ + 1) % kEntries);
  if (head_ == 0) phase_ ^= 1;
  ring_(kCompletionDoorbell, head_);
  if ((done[3] & 0xffff) != command_) return "the completion of another command";
  return done[3] >> 17 == 0 ? "" : "status " + std::to_string(done[3] >> 17);
}

std::string NvmeHost::text(std::size_t at, std::size_t size) const {
  std::string text(reinterpret_cast<const char*>(memory_.data()) + kData + at, size);
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

std::string NvmeHost::model() const {
  return text(24, 40);
}

std::string NvmeHost::serial() const {
  return text(4, 20);
}

}  // namespace outboard::peers
