// Stands in for libFuzzer where the compiler has none: runs a target on every file of the folders
// and files it is given, so that what was once found stays found.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/input.h"

namespace fs = std::filesystem;

namespace {

void add(std::vector<fs::path>& files, const fs::path& path) {
  if (!fs::is_directory(path)) return files.push_back(path);
  for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<fs::path> files;
  for (int i = 1; i < count; ++i) add(files, arguments[i]);
  std::ranges::sort(files);
  if (files.empty()) {
    std::fprintf(stderr, "%s: no file to replay; name the folder of a corpus\n", arguments[0]);
    return EXIT_FAILURE;
  }
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    // Of its exact size, so that a read past its end is found.
    const std::vector<char> read{std::istreambuf_iterator<char>(in), {}};
    if (!in.is_open() || in.bad()) {
      std::fprintf(stderr, "%s: cannot be read\n", file.c_str());
      return EXIT_FAILURE;
    }
    // Before the run: when it ends the program, this says with what.
    std::printf("%s (%zu bytes)\n", file.c_str(), read.size());
    std::fflush(stdout);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(read.data()), read.size());
  }
  std::printf("%zu inputs replayed\n", files.size());
  return EXIT_SUCCESS;
}
