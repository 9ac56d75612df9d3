// Boot marks: order, names, and the stamp a parent passes on.
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "vmm/marks.h"

using namespace outboard;
using namespace outboard::vmm;

TEST_CASE("marks: the first stamp stays, the report is in the order of time, devices are named") {
  Marks marks;
  devices::DeviceMarks& disk = marks.add_device("disk0");
  marks.stamp_at(Mark::first_run, 3'500'000);
  marks.stamp_at(Mark::process_start, 1'000'000);
  disk.stamp_at(devices::DeviceMark::connected, 2'000'000);
  marks.stamp_at(Mark::first_run, 9'000'000);
  CHECK(marks.at(Mark::first_run) == 3'500'000);
  CHECK(!marks.at(Mark::power_off).has_value());
  CHECK(marks.report() ==
        "     0.000 ms  process start\n"
        "     1.000 ms  disk0: connected\n"
        "     2.500 ms  first KVM_RUN\n");
  REQUIRE(marks.list().size() == 3);
  CHECK(marks.list()[1].device == "disk0");
  CHECK(marks.list()[1].key == "connected");
}

TEST_CASE("marks: every mark has a name and a key of its own") {
  std::set<std::string_view> keys;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Mark::count); ++i) {
    CHECK(!mark_name(static_cast<Mark>(i)).empty());
    CHECK(keys.insert(mark_key(static_cast<Mark>(i))).second);
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(devices::DeviceMark::count); ++i) {
    CHECK(!mark_name(static_cast<devices::DeviceMark>(i)).empty());
    CHECK(keys.insert(mark_key(static_cast<devices::DeviceMark>(i))).second);
  }
}

TEST_CASE("OUTBOARD_STARTED_AT: nanoseconds of the last hour; anything else is no time") {
  constexpr std::uint64_t kNow = 7'200'000'000'000;
  CHECK(parent_stamp("7199000000000", kNow) == 7'199'000'000'000);
  CHECK(!parent_stamp(nullptr, kNow));
  for (const char* wrong : {"", "0", "-1", "12x", " 7199000000000", "7200000000001",
                            "3599999999999", "99999999999999999999999"}) {
    CAPTURE(wrong);
    CHECK(!parent_stamp(wrong, kNow));
  }
}
