// Runs tools of the machine (iasl, dtc) on a test's own files, in a directory that goes with the
// test. For the tests of boot/.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>

#include <doctest/doctest.h>

namespace outboard::boot::samples {

class Workshop {
 public:
  Workshop() {
    std::string path = (std::filesystem::temp_directory_path() / "outboard-test-XXXXXX").string();
    REQUIRE(mkdtemp(path.data()) != nullptr);
    directory_ = path;
  }
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;
  ~Workshop() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  void write(const std::string& name, std::span<const std::byte> bytes) const {
    std::ofstream file(directory_ / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    REQUIRE(file.good());
  }

  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream file(directory_ / name, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Runs a shell command there; its output, both streams, is in the file `log`.
  [[nodiscard]] int run(const std::string& command) const {
    return std::system(("cd '" + directory_.string() + "' && " + command + " >log 2>&1").c_str());
  }

  // Whether a program is on the machine; the test that needs it returns when it is not.
  static bool has(const std::string& program) {
    if (std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0) return true;
    std::printf("SKIPPED: %s is not installed\n", program.c_str());
    return false;
  }

 private:
  std::filesystem::path directory_;
};

// The source that dtc reads `tree` back as. It says nothing of the tree, nor of that source, where
// Linux's own checks have more to ask.
inline std::string device_tree_source(std::span<const std::byte> tree) {
  const Workshop workshop;
  workshop.write("machine.dtb", tree);
  REQUIRE(workshop.run("dtc -I dtb -O dts -o machine.dts machine.dtb") == 0);
  CHECK(workshop.read("log").empty());
  REQUIRE(workshop.run("dtc -I dts -O dtb -o again.dtb machine.dts") == 0);
  CHECK(workshop.read("log").empty());
  return workshop.read("machine.dts");
}

}  // namespace outboard::boot::samples
