// --boot-report and --trace of `outboard run`, where no machine comes to be.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>
#include <unistd.h>

#include "vmm/commands.h"
#include "vmm/exit_status.h"

using namespace outboard::vmm;
namespace fs = std::filesystem;

namespace {

// A folder with the configuration of a machine whose device's server cannot be started.
struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "outboard-run.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    std::ofstream(at("m.toml")) << "[kernel]\npath = \"vmlinux\"\n[console]\ntype = \"none\"\n"
                                   "[[device]]\nname = \"disk0\"\nserver = [\"/nonexistent\"]\n";
  }
  ~Folder() { fs::remove_all(path); }
  std::string at(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What the program printed as its log.
class Log {
 public:
  Log() : before_(::dup(STDERR_FILENO)), file_(std::tmpfile()) {
    ::dup2(::fileno(file_), STDERR_FILENO);
  }
  ~Log() {
    text();
    ::close(before_);
    std::fclose(file_);
  }
  std::string text() {
    ::dup2(before_, STDERR_FILENO);
    std::rewind(file_);
    std::string all;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) all += static_cast<char>(c);
    return all;
  }

 private:
  int before_;
  std::FILE* file_;
};

}  // namespace

TEST_CASE("a run that fails before its machine exists leaves a report and a trace all the same") {
  const Folder folder;
  RunCommand command;
  command.config.file = folder.at("m.toml");
  command.boot_report = folder.at("report.json");
  command.trace = folder.at("trace.json");
  Marks marks;
  marks.stamp(Mark::process_start);
  Log log;
  const int status = run_machine(command, marks);
  const std::string said = log.text();
  CHECK(status == to_int(ExitStatus::device_attach));
  const std::string report = content(command.boot_report);
  CHECK(report.find("\"exit_status\": 7,") != std::string::npos);
  CHECK(report.find("/nonexistent") != std::string::npos);
  CHECK(report.find("\"configuration_read\"") != std::string::npos);
  CHECK(content(command.trace).find("\"vcpu0\"") != std::string::npos);
  CHECK(said.find("/nonexistent") != std::string::npos);
}

TEST_CASE("a report or trace that cannot be written is refused at once, status 2, by its option") {
  const Folder folder;
  for (const bool trace : {false, true}) {
    CAPTURE(trace);
    RunCommand command;
    command.config.file = folder.at("m.toml");
    (trace ? command.trace : command.boot_report) = folder.at("missing/out.json");
    Marks marks;
    Log log;
    const int status = run_machine(command, marks);
    const std::string said = log.text();
    CHECK(status == to_int(ExitStatus::usage));
    CHECK(said.find(trace ? "--trace: " : "--boot-report: ") != std::string::npos);
    CHECK(said.find("missing/out.json") != std::string::npos);
    CHECK(said.find("No such file or directory") != std::string::npos);
    CHECK(said.find("/nonexistent") == std::string::npos);  // nothing was started
  }
  RunCommand both;
  both.config.file = folder.at("m.toml");
  both.boot_report = both.trace = folder.at("out.json");
  Marks marks;
  Log log;
  const int status = run_machine(both, marks);
  CHECK(log.text().find("name two files") != std::string::npos);
  CHECK(status == to_int(ExitStatus::usage));
  CHECK_FALSE(fs::exists(both.trace));
}

TEST_CASE("a configuration that is wrong is no run: no report, and nothing left beside it") {
  const Folder folder;
  std::ofstream(folder.at("m.toml")) << "[kernel]\n";
  RunCommand command;
  command.config.file = folder.at("m.toml");
  command.boot_report = folder.at("report.json");
  Marks marks;
  Log log;
  const int status = run_machine(command, marks);
  log.text();
  CHECK(status == to_int(ExitStatus::configuration));
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
}
