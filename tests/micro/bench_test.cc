// outboard-bench as a user runs it, with the programs of this build.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tools/bench/private_folder.h"

using outboard::bench::PrivateFolder;
using outboard::bench::read_file;

namespace {

std::size_t folders_left() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/tmp"))
    if (entry.path().filename().string().starts_with("outboard-bench-")) ++count;
  return count;
}

}  // namespace

TEST_CASE("outboard-bench start: three cold runs, and the figures add up") {
  auto folder = PrivateFolder::create();
  REQUIRE(folder.has_value());
  ::setenv("XDG_RUNTIME_DIR", folder->file("").c_str(), 1);  // its own temporary files go there
  const std::string json = folder->file("r.json");
  const std::string page = folder->file("r.html");
  const std::string command = std::string(OUTBOARD_BENCH) +
                              " start --runs 3 --memory 128M --json " + json + " --html " + page +
                              " >" + folder->file("said") + " 2>&1";
  const int status = std::system(command.c_str());
  REQUIRE_MESSAGE(status == 0, read_file(folder->file("said")));

  const auto root = nlohmann::json::parse(read_file(json));
  CHECK(root["schema"] == 1);
  CHECK(root["command"] == "start");
  const auto& ours = root["ours"];
  CHECK(ours["runs"] == 3);
  double first_run = 0;
  double first_byte = 0;
  double described = 0;
  for (const auto& mark : ours["marks"]) {
    const auto& at = mark["at_ns"];
    CHECK(at["n"] == 3);
    CHECK(at["values"].size() == 3);
    CHECK(at["min"] <= at["p50"]);
    CHECK(at["p50"] <= at["p90"]);
    CHECK(at["p90"] <= at["p99"]);
    CHECK(at["p99"] <= at["max"]);
    CHECK(mark["step_ns"]["min"] >= 0);
    if (mark["key"] == "first_run") first_run = at["p50"];
    if (mark["key"] == "first_byte") first_byte = at["p50"];
    if (mark["key"] == "described") described = at["p50"];
  }
  CHECK(described > 0);
  CHECK(first_run > described);
  CHECK(first_byte > first_run);
  // The median run is one of the runs, in order of time.
  double before = 0;
  for (const auto& mark : ours["median_run"]) {
    CHECK(mark["ns"] >= before);
    before = mark["ns"];
  }
  CHECK(ours["memory_bytes"]["n"] == 3);
  CHECK(ours["memory_bytes"]["p50"] > 1 << 20);
  CHECK(ours["median_run_counts"]["port exits"] > 0);
  CHECK(read_file(page).find("</html>") != std::string::npos);
}

TEST_CASE("outboard-bench names a program that is not there and leaves nothing behind") {
  const std::size_t before = folders_left();
  const std::string command = std::string(OUTBOARD_BENCH) +
                              " start --runs 1 --outboard /nonexistent/outboard >/dev/null 2>&1";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 3);
  CHECK(folders_left() == before);
}
