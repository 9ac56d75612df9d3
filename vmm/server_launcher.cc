#include "vmm/server_launcher.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/server_process.h"

namespace outboard::vmm {
namespace {

using std::chrono::milliseconds;
using vfio_user::Error;
using vfio_user::UniqueFd;

constexpr char kAwait = 'a';
constexpr char kRevive = 'r';

struct Question {
  std::uint32_t number = 0;
  char what = 0;
  bool insist = false;
  std::int64_t deadline = 0;  // milliseconds
};

// `text` is the socket's path, or with a code, the error's message.
struct Answer {
  std::uint32_t number = 0;
  int code = 0;
  std::array<char, 1024> text{};
};

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected(Error{Error::Kind::system, code, std::move(message)});
}

void put(Answer& answer, int code, const std::string& text) {
  answer.code = code;
  const std::size_t size = std::min(text.size(), answer.text.size() - 1);
  std::memcpy(answer.text.data(), text.data(), size);
}

void send_answer(int socket, const Answer& answer) {
  [[maybe_unused]] const ssize_t sent = ::send(socket, &answer, sizeof answer, MSG_NOSIGNAL);
}

// The launcher: one question after the other, until outboard is gone, which closes its end. A
// question that comes while the one before is still waited for ends the wait.
void serve(int socket, ServerProcess& server) {
  Question question;
  while (::recv(socket, &question, sizeof question, 0) == sizeof question) {
    Answer answer;
    answer.number = question.number;
    vfio_user::Result<void> done;
    if (question.what == kRevive) done = server.revive(question.insist);
    if (done) done = server.wait_until_listening(milliseconds(question.deadline), socket);
    if (done) {
      put(answer, 0, server.socket_path());
    } else {
      put(answer, done.error().code != 0 ? done.error().code : EIO, done.error().message);
    }
    send_answer(socket, answer);
  }
}

[[noreturn]] void run_launcher(const std::string& name, const std::vector<std::string>& argv,
                               const std::vector<int>& affinity, int socket) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE}) {
    ::signal(signal, signal == SIGPIPE ? SIG_IGN : SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_NAME, "server-launcher");
  ::setpgid(0, 0);  // Ctrl-C at the terminal is for the VMM
  // Nothing of outboard's is kept open but standard error.
  ::dup2(socket, 3);
  ::fcntl(3, F_SETFD, FD_CLOEXEC);
  ::close_range(4, ~0U, 0);
  if (const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0) {
    ::dup2(null, 0);
    ::dup2(null, 1);
    ::close(null);
  }
  Answer started;
  auto server = ServerProcess::start(name, argv, affinity);
  if (!server) put(started, server.error().code, server.error().message);
  send_answer(3, started);
  if (server) {
    serve(3, **server);
    server->reset();
  }
  ::_exit(0);
}

}  // namespace

vfio_user::Result<std::unique_ptr<ServerLauncher>> ServerLauncher::start(
    const std::string& name, const std::vector<std::string>& argv,
    const std::vector<int>& affinity) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail(errno, fmt::format("device '{}': socketpair: {}", name, std::strerror(errno)));
  UniqueFd theirs(ends[1]);
  std::unique_ptr<ServerLauncher> launcher(new ServerLauncher());
  launcher->socket_ = UniqueFd(ends[0]);
  const pid_t child = ::fork();
  if (child < 0)
    return fail(
        errno, fmt::format("device '{}': cannot start its server: {}", name, std::strerror(errno)));
  if (child == 0) run_launcher(name, argv, affinity, theirs.get());
  launcher->pid_ = child;
  theirs.reset();
  Answer answer;
  if (::recv(launcher->socket_.get(), &answer, sizeof answer, 0) != sizeof answer)
    return fail(ECHILD, fmt::format("device '{}': the launcher of its server has died", name));
  if (answer.code != 0) return fail(answer.code, answer.text.data());
  return launcher;
}

ServerLauncher::~ServerLauncher() {
  socket_.reset();
  if (pid_ <= 0) return;
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

vfio_user::Result<std::string> ServerLauncher::wait_until_listening(milliseconds deadline,
                                                                    int cancel_fd) {
  return ask(kAwait, false, deadline, cancel_fd);
}

vfio_user::Result<std::string> ServerLauncher::revive(bool insist, milliseconds deadline,
                                                      int cancel_fd) {
  return ask(kRevive, insist, deadline, cancel_fd);
}

vfio_user::Result<std::string> ServerLauncher::ask(char what, bool insist, milliseconds deadline,
                                                   int cancel_fd) {
  const Question question{++questions_, what, insist, deadline.count()};
  if (::send(socket_.get(), &question, sizeof question, MSG_NOSIGNAL) != sizeof question)
    return fail(errno, fmt::format("the launcher of its server: {}", std::strerror(errno)));
  for (;;) {
    std::array<pollfd, 2> fds = {{{socket_.get(), POLLIN, 0}, {cancel_fd, POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if ((fds[1].revents & POLLIN) != 0) return fail(ECANCELED, "waiting for its server was ended");
    Answer answer;
    if (::recv(socket_.get(), &answer, sizeof answer, 0) != sizeof answer)
      return fail(ECHILD, "the launcher of its server has died");
    if (answer.number != question.number) continue;  // to one that was cancelled
    if (answer.code != 0) return fail(answer.code, answer.text.data());
    return std::string(answer.text.data());
  }
}

}  // namespace outboard::vmm
