#include "tests/peers/process.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace outboard::peers {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

Folder::Folder() : path_("/tmp/obp-XXXXXX") {
  if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Process::Process(const std::vector<std::string>& command, const std::string& log,
                 const std::vector<std::string>& environment)
    : log_(log) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const std::string folder = std::filesystem::path(log).parent_path();
  int input[2];
  if (::pipe2(input, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  pid_ = ::fork();
  if (pid_ == 0) {
    const int out = ::open(log.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    ::dup2(input[0], STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::setpgid(0, 0);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    if (::chdir(folder.c_str()) != 0) ::_exit(127);
    for (const std::string& setting : environment) ::putenv(const_cast<char*>(setting.c_str()));
    ::execv(words[0], words.data());
    ::_exit(127);
  }
  ::close(input[0]);
  input_ = input[1];
  if (pid_ < 0) throw std::runtime_error("fork");
}

Process::~Process() {
  if (running()) {
    ::kill(pid_, SIGTERM);
    if (!wait(3s)) {
      ::kill(-pid_, SIGKILL);
      ::kill(pid_, SIGKILL);
      wait(10s);
    }
  }
  ::close(input_);
}

std::optional<int> Process::wait(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (!status_) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      status_ = status;
    } else if (Clock::now() >= deadline) {
      break;
    } else {
      std::this_thread::sleep_for(5ms);
    }
  }
  return status_;
}

void Process::kill() {
  ::kill(-pid_, SIGKILL);
  wait(10s);
}

bool Process::running() {
  return !wait(0ms).has_value();
}

std::string Process::output() const {
  std::ostringstream text;
  text << std::ifstream(log_).rdbuf();
  return text.str();
}

bool wait_for_socket(Process& server, const std::string& path) {
  const auto deadline = Clock::now() + 30s;
  while (server.running() && Clock::now() < deadline) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

Outcome run(const std::vector<std::string>& command, const Folder& folder) {
  Process process(command, folder / "run.log");
  const auto status = process.wait(60s);
  return {status && WIFEXITED(*status) ? WEXITSTATUS(*status) : -1, process.output()};
}

bool has_kvm() {
  const int kvm = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm >= 0) ::close(kvm);
  return kvm >= 0;
}

const char* peer(const char* variable) {
  const char* const value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace outboard::peers
