#include "tools/bench/disk_server.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <unistd.h>

#include "tools/bench/memory_file.h"

namespace outboard::bench {
namespace {

using vfio_user::UniqueFd;

constexpr int kReadyNumber = 3;
constexpr int kFirstReadNumber = 4;
constexpr int kStartLimit = 20'000;  // milliseconds
constexpr int kGrace = 5'000;

}  // namespace

Result<DiskServer> DiskServer::start(const std::vector<std::string>& command,
                                     const std::string& socket, Interrupt& interrupt) {
  std::array<int, 2> ready{};
  std::array<int, 2> first{};
  if (::pipe2(ready.data(), O_CLOEXEC) != 0 || ::pipe2(first.data(), O_CLOEXEC | O_NONBLOCK) != 0)
    return fail(ExitStatus::failed, fmt::format("pipe: {}", std::strerror(errno)));
  const UniqueFd ready_in(ready[0]);
  UniqueFd ready_out(ready[1]);
  UniqueFd first_in(first[0]);
  UniqueFd first_out(first[1]);
  UniqueFd errors = memory_file("server-errors");

  ChildOptions options;
  options.argv = command;
  for (const char* word : {"--socket", socket.c_str(), "--ready-fd", "3", "--first-read-fd", "4"})
    options.argv.emplace_back(word);
  options.errors = errors.get();
  options.descriptors = {{ready_out.get(), kReadyNumber}, {first_out.get(), kFirstReadNumber}};
  auto child = Child::start(options);
  if (!child) return tl::unexpected(child.error());
  ready_out.reset();
  first_out.reset();

  std::array<pollfd, 2> fds = {{{ready_in.get(), POLLIN, 0}, {interrupt.fd(), POLLIN, 0}}};
  int count = 0;
  while ((count = ::poll(fds.data(), fds.size(), kStartLimit)) < 0 && errno == EINTR) {
  }
  if (fds[1].revents != 0) return interrupt.error();
  char byte = 0;
  if (count == 0 || ::read(ready_in.get(), &byte, 1) != 1) {
    const auto ended = child->wait(count == 0 ? 0 : kGrace);
    return fail(ExitStatus::failed, fmt::format("the server {} {}:\n{}", command.front(),
                                                ended ? to_string(*ended) : "does not listen",
                                                content_of(errors.get())));
  }
  return DiskServer(std::move(*child), socket, std::move(first_in), std::move(errors));
}

std::vector<Mark> DiskServer::take_marks() {
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t count = 0;
  while ((count = ::read(first_read_.get(), buffer.data(), buffer.size())) > 0)
    text.append(buffer.data(), static_cast<std::size_t>(count));
  std::vector<Mark> marks;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (auto found = marks_of_line(std::string_view(text).substr(at, end - at)); !found.empty())
      marks = std::move(found);  // the last one is the kernel's
    at = end + 1;
  }
  return marks;
}

void DiskServer::stop() {
  child_.stop(kGrace);
}

std::vector<Mark> marks_of_line(std::string_view line) {
  const auto root = nlohmann::json::parse(line, nullptr, false);
  if (!root.is_object() || !root.value("interrupt", false)) return {};
  struct Known {
    const char* field;
    std::string_view key;
    const char* name;
  };
  constexpr std::array kKnown = {
      Known{"connected_ns", kServerConnected, "VMM connected"},
      Known{"enabled_ns", kServerEnabled, "NVMe enabled by the kernel"},
      Known{"doorbell_ns", kServerDoorbell, "first I/O doorbell"},
      Known{"read_ns", kServerRead, "first read completed"},
  };
  std::vector<Mark> marks;
  for (const Known& known : kKnown) {
    const auto found = root.find(known.field);
    if (found == root.end() || !found->is_number_unsigned() || *found == 0U) continue;
    marks.push_back({"server", std::string(known.key), known.name, found->get<double>()});
  }
  return marks;
}

}  // namespace outboard::bench
