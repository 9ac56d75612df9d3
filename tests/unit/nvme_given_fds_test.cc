// outboard-nvme with descriptors that it is started with: socket activation, an open image, and
// what is neither (issue 5, item 7).
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfio_user/client.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"

using namespace outboard;
using vfio_user::UniqueFd;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "nvme-given.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

struct Ended {
  int status = -1;
  std::string said;
};

// The program, with these descriptors as 3, 4, ... under these names, as systemd passes them.
class Started {
 public:
  Started(const std::vector<int>& passed, const char* names, std::vector<std::string> words) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    said_.reset(ends[0]);
    const UniqueFd errors(ends[1]);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(errors.get(), 2);
    constexpr int kAside = 200;
    const int count = static_cast<int>(passed.size());
    for (int i = 0; i < count; ++i) ::dup2(passed[static_cast<std::size_t>(i)], kAside + i);
    for (int i = 0; i < count; ++i) ::dup2(kAside + i, 3 + i);
    ::close_range(3 + static_cast<unsigned>(count), ~0U, 0);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", std::to_string(count).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names, 1);
    std::vector<char*> argv;
    words.insert(words.begin(), "outboard-nvme");
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(OUTBOARD_NVME_PROGRAM, argv.data());
    ::_exit(127);
  }
  ~Started() {
    if (pid_ > 0) end(SIGKILL);
  }
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;

  Ended end(int signal = 0) {
    if (signal != 0) ::kill(pid_, signal);
    Ended ended;
    std::array<char, 4096> piece{};
    for (ssize_t got = 0; (got = ::read(said_.get(), piece.data(), piece.size())) > 0;)
      ended.said.append(piece.data(), static_cast<std::size_t>(got));
    int how = 0;
    ::waitpid(std::exchange(pid_, -1), &how, 0);
    ended.status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    return ended;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd said_;
};

UniqueFd image_in(const Folder& folder, int flags = O_RDWR) {
  const std::string path = folder.path / "disk.img";
  UniqueFd made(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(::ftruncate(made.get(), 1 << 20) == 0);
  return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC));
}

}  // namespace

TEST_CASE("a listening socket and an image that are passed open are served, and stay at the end") {
  Folder folder;
  const std::string path = folder.path / "disk.sock";
  auto listener = vfio_user::listen_unix(path, 4);
  REQUIRE(listener);
  const UniqueFd image = image_in(folder);
  const auto serial = [&](const std::string& file) {
    Started program({listener->get(), image.get()}, "disk.socket:image",
                    {"--socket", "fd:disk.socket", "--file", file});
    auto client = vfio_user::Client::connect(path, {});
    REQUIRE(client);
    auto device = (*client)->attach({});
    REQUIRE(device);
    CHECK(device->config.size() >= 256);
    const Ended ended = program.end(SIGTERM);
    CHECK(ended.status == 0);
    CHECK(ended.said.empty());
    return true;
  };
  CHECK(serial("fd:image"));
  CHECK(serial("fd:4"));  // the same socket once more: its file was not removed
  CHECK(fs::exists(path));
}

TEST_CASE("a descriptor that cannot be served ends the program with one line and its status") {
  Folder folder;
  const UniqueFd image = image_in(folder);
  const UniqueFd reader = image_in(folder, O_RDONLY);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto listener = vfio_user::listen_unix(folder.path / "s", 4);
  REQUIRE(listener);
  struct Row {
    int fd;
    std::vector<std::string> words;
    int status;
    std::string line;
  };
  const std::string other = folder.path / "t";
  const Row rows[] = {
      {null.get(), {"--socket", "fd:3", "--null", "1M"}, 4, "the descriptor is no socket"},
      {socket.get(), {"--socket", "fd:3", "--null", "1M"}, 4, "no listening Unix stream socket"},
      {null.get(), {"--socket", "fd:9", "--null", "1M"}, 4, "fd:9 is not open"},
      {null.get(),
       {"--socket", "fd:a", "--null", "1M"},
       2,
       "no descriptor of that name was passed"},
      {image.get(), {"--socket", "fd:3", "--file", "fd:3"}, 2, "is named twice"},
      {null.get(), {"--socket", other, "--file", "fd:3"}, 3, "neither a regular file nor a block"},
      {null.get(), {"--socket", other, "--file", "fd:9"}, 3, "fd:9 is not open"},
      {reader.get(), {"--socket", other, "--file", "fd:3"}, 3, "is not open for writing"},
      {image.get(),
       {"--socket", other, "--file", "fd:3", "--state", (folder.path / "state").string()},
       2,
       "shares its lock"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.line);
    const Ended ended = Started({row.fd}, "x", row.words).end();
    CHECK(ended.status == row.status);
    CHECK_MESSAGE(ended.said.find(row.line) != std::string::npos, ended.said);
  }
  CHECK_FALSE(fs::exists(other));
}
