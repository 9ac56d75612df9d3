// A file that appears whole or not at all.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/output_file.h"

using namespace outboard::vmm;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "outboard-output.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string at(const std::string& name) const { return (path / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
  fs::path path;
};

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE(
    "an output file is there, whole, only once it is committed; what was there stays before") {
  const Folder folder;
  const std::string path = folder.at("report.json");
  std::ofstream(path) << "old";
  {
    auto file = OutputFile::create(path);
    REQUIRE(file);
    file->write("one ");
    CHECK(content(path) == "old");
    file->write("two");
    CHECK(content(path) == "old");
    REQUIRE(file->commit());
    CHECK(content(path) == "one two");
  }
  CHECK(content(path) == "one two");
  CHECK(folder.files() == 1);
}

TEST_CASE("an output file that is not committed leaves nothing behind") {
  const Folder folder;
  {
    auto file = OutputFile::create(folder.at("report.json"));
    REQUIRE(file);
    file->write("half");
    CHECK(folder.files() == 1);
  }
  CHECK(folder.files() == 0);
}

TEST_CASE("an output file may be read by whom the umask says") {
  const Folder folder;
  const mode_t before = ::umask(027);
  auto file = OutputFile::create(folder.at("report.json"));
  CHECK(::umask(before) == 027);  // and the umask is as it was
  REQUIRE(file);
  REQUIRE(file->commit());
  struct stat status {};
  REQUIRE(::stat(folder.at("report.json").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
}

TEST_CASE("an output file replaces what a link names, not the link") {
  const Folder folder;
  std::ofstream(folder.at("real")) << "old";
  fs::create_symlink("real", folder.at("link"));
  auto file = OutputFile::create(folder.at("link"));
  REQUIRE(file);
  file->write("new");
  REQUIRE(file->commit());
  CHECK(fs::is_symlink(folder.at("link")));
  CHECK(content(folder.at("real")) == "new");
}

TEST_CASE("an output file that cannot be made is refused with its path, status 2") {
  const Folder folder;
  for (const std::string& path : {folder.at("missing/report.json"), folder.path.string(),
                                  std::string("/dev/null"), std::string()}) {
    CAPTURE(path);
    const auto file = OutputFile::create(path);
    REQUIRE_FALSE(file);
    CHECK(file.error().status == ExitStatus::usage);
    CHECK(file.error().message.find(path) != std::string::npos);
    CHECK(file.error().message.find("name ") != std::string::npos);
  }
}

TEST_CASE("an output file whose folder went away is an error of commit(), status 1") {
  Folder folder;
  auto file = OutputFile::create(folder.at("report.json"));
  REQUIRE(file);
  fs::remove_all(folder.path);
  const auto committed = file->commit();
  REQUIRE_FALSE(committed);
  CHECK(committed.error().status == ExitStatus::internal_error);
  CHECK(committed.error().message.find("report.json") != std::string::npos);
}
