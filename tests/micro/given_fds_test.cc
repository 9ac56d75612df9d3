// A machine that is given everything as descriptors: it runs as nobody, in an empty root, with its
// device's server outside (issue 5, item 7).
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <elf.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/micro/guest_run.h"
#include "vfio_user/transport.h"
#include "vmm/commands.h"

using namespace outboard;
using namespace outboard::micro;
using vfio_user::UniqueFd;
namespace fs = std::filesystem;

namespace {

constexpr unsigned kNobody = 65534;

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "outboard-given.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    fs::permissions(path, fs::perms(0755));
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

// Runs a program until the object ends.
class Child {
 public:
  template <class Run>
  explicit Child(Run&& run) : pid_(::fork()) {
    if (pid_ == 0) {
      run();
      ::_exit(127);
    }
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    status();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  int status() {
    int how = 0;
    if (::waitpid(std::exchange(pid_, -1), &how, 0) < 0) return -1;
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
  }

 private:
  pid_t pid_;
};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    out.reset(ends[0]);
    in.reset(ends[1]);
  }
  UniqueFd out, in;
};

// What comes out until `wanted` is in it, or the end; the test fails after a minute.
std::string read_until(int fd, const std::string& wanted) {
  std::string text;
  std::array<char, 4096> piece{};
  while (text.find(wanted) == std::string::npos) {
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, 60'000) <= 0) break;
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  return text;
}

bool is_static(const std::string& program) {
  std::ifstream file(program, std::ios::binary);
  Elf64_Ehdr header{};
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return false;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return false;
    if (segment.p_type == PT_INTERP) return false;
  }
  return true;
}

// An outboard that needs no library in its root: this build's own, or the release build's.
std::string static_program() {
  for (const char* program : {OUTBOARD_PROGRAM, OUTBOARD_RELEASE_PROGRAM}) {
    if (is_static(program)) return program;
  }
  return {};
}

UniqueFd open_or_fail(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
  REQUIRE_MESSAGE(fd, path);
  return fd;
}

// Descriptor 3 + i is passed[i], and there is no other.
void pass(const std::vector<int>& passed) {
  constexpr int kAside = 200;
  for (std::size_t i = 0; i < passed.size(); ++i) ::dup2(passed[i], kAside + static_cast<int>(i));
  for (std::size_t i = 0; i < passed.size(); ++i)
    ::dup2(kAside + static_cast<int>(i), 3 + static_cast<int>(i));
  ::close_range(3 + static_cast<unsigned>(passed.size()), ~0U, 0);
}

bool become_nobody_in(const char* root) {
  return ::chroot(root) == 0 && ::chdir("/") == 0 && ::setgroups(0, nullptr) == 0 &&
         ::setgid(kNobody) == 0 && ::setuid(kNobody) == 0 && ::setuid(0) != 0;
}

void set_environment(std::size_t count, const char* names) {
  ::clearenv();
  ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  ::setenv("LISTEN_FDS", std::to_string(count).c_str(), 1);
  ::setenv("LISTEN_FDNAMES", names, 1);
}

// A disk in memory, as a process of its own.
Child start_disk(const std::string& socket) {
  return Child([&] {
    ::execl(OUTBOARD_NVME_PROGRAM, "outboard-nvme", "--socket", socket.c_str(), "--memory", "16M",
            nullptr);
  });
}

constexpr const char* kMachine = R"([machine]
memory = "128M"
kvm = "fd:kvm"
memory_fd = "fd:memory"
[kernel]
path = "fd:kernel"
[[device]]
name = "disk"
)";

void run_as_nobody(const std::string& program, const std::string& device, bool by_directory) {
  Folder outside, root;
  const std::string socket = (outside.path / "disk.sock").string();
  std::ofstream(root.path / "m.toml") << kMachine << device;
  if (!program.empty()) fs::copy_file(program, root.path / "outboard");

  Child disk = start_disk(socket);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!fs::exists(socket) && std::chrono::steady_clock::now() < deadline) ::usleep(1000);
  fs::permissions(socket, fs::perms(0666));

  const UniqueFd kvm = open_or_fail("/dev/kvm", O_RDWR);
  const UniqueFd memory(::memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(memory.get(), 128 << 20) == 0);
  const UniqueFd kernel = open_or_fail(std::string(OUTBOARD_GUESTS) + "/nvme_resume", O_RDONLY);
  UniqueFd way = by_directory ? open_or_fail(outside.path.string(), O_PATH | O_DIRECTORY)
                              : *vfio_user::connect_unix(socket, deadline);
  Pipe input, output, errors;
  Child machine([&] {
    ::dup2(input.out.get(), 0);
    ::dup2(output.in.get(), 1);
    ::dup2(errors.in.get(), 2);
    pass({kvm.get(), memory.get(), kernel.get(), way.get()});
    if (!become_nobody_in(root.path.c_str())) ::_exit(126);
    set_environment(4, "kvm:memory:kernel:disk");
    if (!program.empty()) {
      ::execl("/outboard", "outboard", "run", "/m.toml", nullptr);
      ::_exit(125);
    }
    vmm::RunCommand command;
    command.sandbox = true;
    command.config.file = "/m.toml";
    vmm::Marks marks;
    ::_exit(vmm::run_machine(command, marks));
  });
  way.reset();
  output.in.reset();
  errors.in.reset();
  std::string console = read_until(output.out.get(), "ready\n");
  REQUIRE(::write(input.in.get(), "x", 1) == 1);
  console += read_until(output.out.get(), "PASSED\n");
  const int status = machine.status();
  const std::string said = read_until(errors.out.get(), "\n\n");
  CAPTURE(said);
  CHECK(status == 0);
  CHECK_MESSAGE(console.ends_with("PASSED\n"), console);
  // The memory is the one that was given: what the guest last wrote is there.
  std::uint64_t seen = 0;
  REQUIRE(::pread(memory.get(), &seen, sizeof seen, 0x1010008) == sizeof seen);
  CHECK(seen != 0);
}

}  // namespace

TEST_CASE("nobody, in an empty root, with every descriptor passed: the guest boots and does I/O") {
  if (::geteuid() != 0) {
    MESSAGE("not tested: chroot(2) is for root");
    return;
  }
  run_as_nobody({}, "socket = \"fd:disk\"\n", false);
  run_as_nobody({}, "socket = \"fd:disk/disk.sock\"\non_disconnect = \"reconnect\"\n", true);
}

TEST_CASE("nobody, in a root with nothing but the static program and its configuration") {
  if (::geteuid() != 0) {
    MESSAGE("not tested: chroot(2) is for root");
    return;
  }
  const std::string program = static_program();
  if (program.empty()) {
    MESSAGE("not tested: there is no static program; build the release preset");
    return;
  }
  run_as_nobody(program, "socket = \"fd:disk\"\n", false);
  run_as_nobody(program, "socket = \"fd:disk/disk.sock\"\n", true);
}

TEST_CASE("a server that outboard starts gets none of the descriptors that were passed") {
  Folder folder;
  const std::string list = (folder.path / "open").string();
  std::ofstream(folder.path / "m.toml")
      << "[machine]\nmemory = \"128M\"\nkvm = \"fd:kvm\"\n[kernel]\npath = "
         "\"fd:4\"\n[console]\ntype "
         "= \"none\"\n[[device]]\nserver = [\"sh\", \"-c\", \"echo $LISTEN_FDS >"
      << list << "; readlink /proc/$$/fd/* >>" << list << "; exec " << OUTBOARD_NVME_PROGRAM
      << " --memory 16M --socket {socket}\"]\n";
  const UniqueFd kvm = open_or_fail("/dev/kvm", O_RDWR);
  const UniqueFd kernel = open_or_fail(std::string(OUTBOARD_GUESTS) + "/hello", O_RDONLY);
  const UniqueFd unused = open_or_fail("/dev/zero", O_RDONLY);
  Child machine([&] {
    pass({kvm.get(), kernel.get(), unused.get()});
    const std::string path = std::getenv("PATH");
    set_environment(3, "kvm:kernel:unused");
    ::setenv("PATH", path.c_str(), 1);
    vmm::RunCommand command;
    command.sandbox = true;
    command.config.file = (folder.path / "m.toml").string();
    vmm::Marks marks;
    ::_exit(vmm::run_machine(command, marks));
  });
  CHECK(machine.status() == 0);
  std::ifstream file(list);
  const std::string open(std::istreambuf_iterator<char>(file), {});
  CHECK_MESSAGE(open.starts_with("\n"), open);
  for (const char* leaked : {"kvm", "hello", "/dev/zero"})
    CHECK_MESSAGE(open.find(leaked) == std::string::npos, open);
}
