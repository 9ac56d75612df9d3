// vCPU threads on real KVM: kicks are never lost, and a paused vCPU stands still.
#include "vmm/vcpu_set.h"

#include <atomic>
#include <cstring>

#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "vmm/board.h"
#include "vmm/guest_image.h"

using namespace outboard;
using namespace outboard::micro;

namespace {

// A board whose vCPUs run `code`, which is loaded at 2 MiB, in 32-bit protected mode.
struct Spinner {
  explicit Spinner(std::uint32_t vcpus) {
    auto config = guest_config("hello");
    config.vcpus = vcpus;
    auto made = vmm::Board::create(config);
    REQUIRE(made);
    board = std::move(*made);
    auto powered = board->power_on(vcpus);
    REQUIRE(powered);
    // lock inc dword [0x100000]; jmp back: every round is seen in guest memory.
    const unsigned char code[] = {0xf0, 0xff, 0x05, 0x00, 0x00, 0x10, 0x00, 0xeb, 0xf7};
    std::memcpy(board->memory().at(0x200000, sizeof(code)).data(), code, sizeof(code));
    boot::EntryState entry;
    entry.protocol = boot::Protocol::pvh;
    entry.rip = 0x200000;
    REQUIRE(board->cpus().enter(powered->front(), entry));
    auto set = vmm::VcpuSet::create(std::move(*powered), bus, marks,
                                    [this](vmm::VcpuEvent) { ++events; }, {});
    REQUIRE(set);
    vcpus_ = std::move(*set);
  }

  std::uint32_t counter() const {
    std::uint32_t value = 0;
    std::memcpy(&value, board->memory().at(0x100000, 4).data(), sizeof(value));
    return value;
  }

  std::unique_ptr<vmm::Board> board;
  vmm::Bus bus;
  vmm::Marks marks;
  std::atomic<int> events{0};
  std::unique_ptr<vmm::VcpuSet> vcpus_;
};

}  // namespace

TEST_CASE("pause returns with every vCPU parked, and no guest instruction runs until resume") {
  Spinner spinner(4);
  std::uint32_t moved = 0;
  for (int i = 0; i < 300; ++i) {
    spinner.vcpus_->resume();
    const std::uint32_t before = spinner.counter();
    if (i % 10 == 0) {
      while (spinner.counter() == before) std::this_thread::yield();
      ++moved;
    }
    spinner.vcpus_->pause();
    const std::uint32_t parked = spinner.counter();
    for (int spin = 0; spin < 1000; ++spin) {
      if (spinner.counter() != parked) FAIL("a paused vCPU ran");
    }
  }
  CHECK(moved == 30);
  CHECK(spinner.events == 0);
}

TEST_CASE("pause and stop from several orders at once neither hang nor lose one") {
  for (int i = 0; i < 50; ++i) {
    Spinner spinner(2);
    spinner.vcpus_->resume();
    std::jthread other([&] {
      for (int n = 0; n < 20; ++n) spinner.vcpus_->request_pause();
    });
    spinner.vcpus_->pause();
    spinner.vcpus_->resume();
    other.join();
    spinner.vcpus_->stop();
    spinner.vcpus_->stop();
  }
}
