#include "tests/chaos/liar.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
using Kind = WireTap::Event::Kind;

// Reads of BAR 0 that show a guest at work with the device.
constexpr std::uint64_t kAtWork = 4;
// A machine that gives its device up does not come again within this time; else it does at once.
constexpr auto kGivenUp = 3s;

bool is_work(const Event& event) {
  return is_reply_to(event, Command::region_read) &&
         event.message.as<wire::RegionAccess>().region == wire::kRegionBar0;
}

const char* name_of(Lie::Outcome outcome) {
  switch (outcome) {
    case Lie::Outcome::goes_on:
      return "go on";
    case Lie::Outcome::dropped:
      return "end the connection";
    case Lie::Outcome::either:
      return "go on, or end the connection";
    case Lie::Outcome::given_up:
      return "give the device up";
  }
  return "";
}

}  // namespace

struct Liar::Connection {
  Connection(UniqueFd client, UniqueFd server, NvmeProcess& process,
             std::chrono::milliseconds deadline)
      : tap(std::move(client), std::move(server)), stage(tap, process, deadline) {}
  WireTap tap;
  Stage stage;
};

Liar::Liar(LiarOptions options)
    : options_(std::move(options)),
      server_(options_.server, options_.socket + ".server"),
      listener_(listen_at(options_.socket)),
      stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Liar::~Liar() = default;

void Liar::stop() {
  ::eventfd_write(stop_.get(), 1);
}

bool Liar::stopped() const {
  pollfd fd{stop_.get(), POLLIN, 0};
  return ::poll(&fd, 1, 0) == 1;
}

// The server dies first: one whose client leaves forgets what it had.
void Liar::end_connection() {
  server_.kill();
  if (!connection_) return;
  old_eventfds_.clear();
  for (auto& [place, fd] : connection_->stage.eventfds) old_eventfds_.push_back(std::move(fd));
  connection_.reset();
  reads_ = 0;
}

bool Liar::accept() {
  end_connection();
  for (;;) {
    pollfd fds[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return false;
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) continue;
    if (!server_.start()) {
      wrong("outboard-nvme does not start again");
      return false;
    }
    connection_ = std::make_unique<Connection>(std::move(client), connect_to(server_.socket()),
                                               server_, options_.deadline);
    connection_->stage.old_eventfds = std::exchange(old_eventfds_, {});
    return true;
  }
}

// What the machine must never do, and what lies will need.
void Liar::look_at(const Event& event) {
  const Incoming& message = event.message;
  if (event.from != From::client || message.is_reply()) return;
  if (!message.whole) wrong("C34: a message came in pieces");
  const bool posted = (message.header.flags & wire::kNoReply) != 0;
  switch (message.command()) {
    case Command::region_read:
    case Command::region_write:
      if (posted && message.as<wire::RegionAccess>().region == wire::kRegionConfig) {
        wrong("C57: a posted write to configuration space");
      }
      break;
    case Command::dma_map: {
      const auto map = message.as<wire::DmaMap>();
      struct stat status {};
      if (message.fds.size() != 1 || ::fstat(message.fds[0].get(), &status) != 0 ||
          static_cast<std::uint64_t>(status.st_size) < map.offset + map.size) {
        wrong("C75: a window that its file does not have");
      }
      constexpr std::uint64_t kLarge = 2 << 20;
      if ((map.address | map.size | map.offset) % kLarge != 0) {
        wrong("C76: a window that is no multiple of 2 MiB");
      }
      break;
    }
    case Command::device_set_irqs: {
      const auto set = message.as<wire::SetIrqs>();
      if ((set.flags & wire::kSetIrqsDataEventfd) == 0) break;
      for (std::size_t i = 0; i < message.fds.size(); ++i) {
        connection_->stage.eventfds[{set.index, set.start + static_cast<std::uint32_t>(i)}] =
            UniqueFd(::fcntl(message.fds[i].get(), F_DUPFD_CLOEXEC, 3));
      }
      break;
    }
    default:
      break;
  }
}

Kind Liar::step(const Lie* lie, Told& told) {
  auto event = connection_->tap.next(20ms);
  if (event.kind != Kind::message) return event.kind;
  if (hangs_) return event.kind;
  look_at(event);
  if (event.from == From::client && event.message.is_reply()) {
    connection_->stage.answered(event.message);  // outboard-nvme asks nothing
    return event.kind;
  }
  // A twin socket would go past us, and tell the server of the machine's leaving before we do.
  if (event.from == From::client && is_command(event, Command::version)) {
    edit_version(event.message, [](nlohmann::json& json) { json.erase("twin_socket"); });
  }
  const bool work = is_work(event);
  if (lie != nullptr) told = lie->tell(connection_->stage, event);
  if (told == Told::not_yet) connection_->tap.pass(event);
  if (work && event.from == From::server) ++reads_;
  return event.kind;
}

// Serves the machine, over one connection or several.
bool Liar::serve_until(const std::function<bool()>& enough, std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  while (!enough()) {
    if (stopped() || Clock::now() > end) return false;
    if (!connection_ && !accept()) return false;
    Told told = Told::not_yet;
    const Kind kind = step(nullptr, told);
    if (kind == Kind::client_left || kind == Kind::server_left) end_connection();
  }
  return true;
}

// Empty: all is as it must be.
std::string Liar::tell(const Lie& lie) {
  const auto at_work = [this] { return connection_ && reads_ >= kAtWork; };
  const auto within = options_.patience;
  if (!serve_until(at_work, within)) return "the guest is not at work with the device before it";
  if (lie.when == Lie::When::attaching && !accept()) return "stopped";

  const auto end = Clock::now() + within;
  Told told = Told::not_yet;
  while (told == Told::not_yet || told == Told::handled) {
    if (stopped() || Clock::now() > end) return "there was no occasion to tell it";
    told = Told::not_yet;
    const Kind kind = step(&lie, told);
    if (kind == Kind::client_left || kind == Kind::server_left) {
      return "the connection ended before it was told";
    }
  }
  if (told == Told::ended) {
    end_connection();
    return serve_until(at_work, within) ? "" : "the guest is not at work with the device after it";
  }

  // Either the machine leaves, or it does so much more work that it has read the lie.
  const std::uint64_t before = reads_;
  bool left = false;
  while (!left && (reads_ < before + kAtWork || connection_->stage.waits())) {
    if (stopped() || Clock::now() > end) return "the machine neither goes on nor leaves";
    Told none = Told::not_yet;
    const Kind kind = step(nullptr, none);
    left = kind == Kind::client_left;
    if (kind == Kind::server_left) return "outboard-nvme has died of it";
  }
  const std::string failure = connection_->stage.failure;
  if (!failure.empty()) return failure;
  const bool may_leave = lie.outcome != Lie::Outcome::goes_on;
  const bool may_stay = lie.outcome == Lie::Outcome::goes_on || lie.outcome == Lie::Outcome::either;
  if (left ? !may_leave : !may_stay) {
    return std::string("the machine should ") + name_of(lie.outcome);
  }
  if (lie.outcome == Lie::Outcome::given_up) {
    end_connection();
    pollfd fd{listener_.get(), POLLIN, 0};
    return ::poll(&fd, 1, static_cast<int>(std::chrono::milliseconds(kGivenUp).count())) == 0
               ? ""
               : "the machine comes again";
  }
  if (left || lie.heal) end_connection();
  return serve_until(at_work, within) ? "" : "the guest is not at work with the device after it";
}

std::vector<std::string> Liar::run(const std::vector<Lie>& lies,
                                   const std::function<bool()>& next_lie) {
  if (!listener_) wrong("cannot listen at " + options_.socket);
  for (const Lie& lie : lies) {
    if (stopped()) break;
    const std::string failure = tell(lie);
    if (!failure.empty()) {
      end_connection();  // the next one begins anew
      wrong(lie.item + " " + lie.what + ": " + failure);
    }
    if (options_.say) {
      options_.say((failure.empty() ? "told " : "FAILED ") + lie.item + " " + lie.what +
                   (failure.empty() ? "" : ": " + failure));
    }
    ++told_;
    if (next_lie) (void)serve_until(next_lie, 600s);
  }
  if (lies.empty() || lies.back().outcome != Lie::Outcome::given_up) {
    (void)serve_until([] { return false; }, 24h);
  }
  end_connection();
  return wrongs_;
}

}  // namespace outboard::chaos
