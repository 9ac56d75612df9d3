// kill -9 of the program at places drawn over the life of commands and of the controller: the guest
// loses no write, sees no error and no completion twice, and misses no interrupt.
#include <cstdlib>
#include <string>

#include "tests/unit/nvme_crash_guest.h"

namespace outboard::nvme::test {
namespace {

struct Files {
  explicit Files(u64 size) : image(socket_path() + ".img"), state(socket_path() + ".state") {
    const vfio_user::UniqueFd fd(open(image.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    REQUIRE(fd);
    REQUIRE(ftruncate(fd.get(), static_cast<off_t>(size)) == 0);
  }
  ~Files() {
    unlink(image.c_str());
    unlink(state.c_str());
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  const std::string image, state;
};

u64 number(const char* variable, u64 otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Each point by itself, any point after some hundred, or an hour that the guest chooses.
FailPlan draw(std::mt19937_64& random) {
  FailPlan plan;
  switch (random() % 5) {
    case 0:
    case 1:
      plan.armed = true;
      plan.point = static_cast<FailPoint>(random() % static_cast<u64>(FailPoint::kCount));
      plan.passes = random() % 12;
      break;
    case 2:
    case 3:
      plan.armed = true;
      plan.passes = random() % 600;
      break;
    default:
      break;
  }
  return plan;
}

void torment(DoorbellMode mode, bool threads, u64 lives, u64 seed) {
  CAPTURE(static_cast<int>(mode));
  CAPTURE(seed);
  const Files files(CrashGuest::kBlocks * 512);
  CrashGuest guest({.image = files.image, .state = files.state, .mode = mode, .threads = threads},
                   seed, draw);
  std::mt19937_64 random(seed + 1);
  guest.start();
  u64 steps = 0;
  u64 steps_of_this_life = 0;
  for (u64 life = guest.lives(); guest.lives() < lives; ++steps) {
    guest.step();
    if (random() % 16 == 0) guest.manage();
    if (random() % 400 == 0) guest.reset();
    if (random() % 300 == 0) guest.restart_in_order();
    if (guest.lives() != life) {
      life = guest.lives();
      steps_of_this_life = 0;
    } else if (++steps_of_this_life > random() % 60) {
      guest.kill_now();
    }
  }
  guest.settle();
  guest.verify();
  MESSAGE("mode " << static_cast<int>(mode) << ", threads " << threads << ": " << guest.lives()
                  << " servers, " << guest.completed() << " completions");
}

}  // namespace

TEST_CASE(
    "kill -9 at any place: no write is lost, no command completes twice or fails, no interrupt is "
    "missed; in each doorbell mode") {
  const u64 lives = std::getenv("OUTBOARD_FULL") != nullptr ? 2000 : 100;
  const u64 seed = number("OUTBOARD_SEED", 5);
  torment(DoorbellMode::shadow, false, lives, seed);
  torment(DoorbellMode::page, false, lives, seed);
  torment(DoorbellMode::trap, false, lives, seed);
#ifndef __SANITIZE_THREAD__  // which knows no threads in the child of a fork
  torment(DoorbellMode::shadow, true, lives / 2, seed);
#endif
}

TEST_CASE(
    "kill -9 while an admin command changes the controller's state, in a reset and in an enabling: "
    "it is whole again before the guest looks") {
  for (const FailPoint point : {FailPoint::effect_begin, FailPoint::effect_end,
                                FailPoint::disabling, FailPoint::enabling}) {
    CAPTURE(static_cast<int>(point));
    const bool resets = point == FailPoint::disabling || point == FailPoint::enabling;
    const Files files(CrashGuest::kBlocks * 512);
    CrashGuest guest({.image = files.image, .state = files.state, .mode = DoorbellMode::page}, 21,
                     [&](std::mt19937_64& random) {
                       return FailPlan{.armed = true, .point = point, .passes = random() % 3};
                     });
    guest.start();
    for (int round = 0; guest.lives() < 16; ++round) {
      REQUIRE(round < 1000);
      guest.step();
      if (resets) {
        guest.reset();
      } else {
        guest.manage();
      }
    }
    guest.settle();
    guest.verify();
  }
}

TEST_CASE("outboard-nvme itself: killed and started again under load, and how long that takes") {
  const char* other = std::getenv("OUTBOARD_NVME");
  const std::string program = other != nullptr ? other : OUTBOARD_NVME_PROGRAM;
  for (const DoorbellMode mode : {DoorbellMode::shadow, DoorbellMode::page, DoorbellMode::trap}) {
    CAPTURE(static_cast<int>(mode));
    const Files files(CrashGuest::kBlocks * 512);
    CrashGuest guest({.image = files.image, .state = files.state, .mode = mode, .program = program},
                     9, [](std::mt19937_64&) { return FailPlan{}; });
    guest.start();
    const u64 lives = number("OUTBOARD_RESTARTS", 10);
    while (guest.lives() <= lives) {
      for (int i = 0; i < 20; ++i) guest.step();
      guest.kill_now();
      guest.settle();
    }
    guest.restart_in_order();
    guest.settle();
    guest.verify();
    guest.leave();
    auto times = guest.restarts();
    std::sort(times.begin(), times.end());
    REQUIRE_FALSE(times.empty());
    MESSAGE("mode " << static_cast<int>(mode) << ": from start to the first command completed: p50 "
                    << times[times.size() / 2].count() << " us, p99 "
                    << times[times.size() * 99 / 100].count() << " us, " << times.size()
                    << " restarts");
  }
}

}  // namespace outboard::nvme::test
