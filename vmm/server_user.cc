#include "vmm/server_user.h"

#include <cerrno>
#include <charconv>
#include <fstream>
#include <string>

#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

namespace outboard::vmm {
namespace {

std::optional<std::uint32_t> number_of(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

// Not getpwnam(3): in a static program it loads the host's libraries, and in a chroot it has none.
std::optional<std::uint32_t> uid_of(std::string_view name) {
  if (name.find(':') != std::string_view::npos) return {};
  std::ifstream users("/etc/passwd");
  for (std::string line; std::getline(users, line);) {
    const std::string_view text = line;  // name:password:uid:...
    if (!text.starts_with(name) || !text.substr(name.size()).starts_with(':')) continue;
    const std::size_t uid = text.find(':', name.size() + 1);
    if (uid == std::string_view::npos) continue;
    return number_of(text.substr(uid + 1, text.find(':', uid + 1) - uid - 1));
  }
  return {};
}

}  // namespace

std::optional<ServerUser> parse_server_user(std::string_view text) {
  using Kind = ServerUser::Kind;
  if (text == "self") return ServerUser{Kind::self, 0};
  if (text == "any") return ServerUser{Kind::any, 0};
  const auto uid = number_of(text) ? number_of(text) : uid_of(text);
  if (text.empty() || !uid) return {};
  return ServerUser{Kind::uid, *uid};
}

std::string server_user_text(const ServerUser& user) {
  switch (user.kind) {
    case ServerUser::Kind::self:
      return ::geteuid() == 0 ? "root (outboard's own user)"
                              : fmt::format("outboard's own user ({}) or root", ::geteuid());
    case ServerUser::Kind::any:
      return "any user";
    case ServerUser::Kind::uid:
      break;
  }
  return fmt::format("user {}", user.uid);
}

vfio_user::Result<void> check_server_user(int socket, const ServerUser& allowed) {
  if (allowed.kind == ServerUser::Kind::any) return {};
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return vfio_user::fail(vfio_user::Error::Kind::system, errno,
                           "it does not say whose process is behind it");
  }
  const bool good = allowed.kind == ServerUser::Kind::uid
                        ? peer.uid == allowed.uid
                        : peer.uid == ::geteuid() || peer.uid == 0;
  if (good) return {};
  return vfio_user::fail(
      vfio_user::Error::Kind::invalid, EPERM,
      fmt::format("its server runs as user {} (process {}), and has to be of {}; if that is right, "
                  "set server_uid = {}",
                  peer.uid, peer.pid, server_user_text(allowed), peer.uid));
}

}  // namespace outboard::vmm
