#include <doctest/doctest.h>

#include "vfio_user/reply_poll.h"

namespace outboard::vfio_user {
namespace {

using namespace std::chrono_literals;

// Waits until the next one that polls, that one not counted.
std::uint32_t waits_without(ReplyPoll& poll) {
  std::uint32_t count = 0;
  while (!poll.wanted()) ++count;
  return count;
}

TEST_CASE("polling goes on while it helps, and becomes rare where it does not") {
  ReplyPoll poll(50us);
  for (int i = 0; i < 100; ++i) {
    REQUIRE(poll.wanted());
    poll.succeeded();
  }
  REQUIRE(poll.wanted());
  for (std::uint32_t expected = 1; expected <= ReplyPoll::kMaxSkipped; expected *= 2) {
    poll.failed();
    CHECK(waits_without(poll) == expected);
  }
  poll.failed();
  CHECK(waits_without(poll) == ReplyPoll::kMaxSkipped);
  poll.succeeded();
  CHECK(poll.wanted());
  poll.failed();
  CHECK(waits_without(poll) == 1);
}

TEST_CASE("a window of nothing never polls") {
  ReplyPoll poll(0us);
  for (int i = 0; i < 5000; ++i) REQUIRE_FALSE(poll.wanted());
}

}  // namespace
}  // namespace outboard::vfio_user
