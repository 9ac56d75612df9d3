// Everything at once, with a model that knows every value: threads as vCPUs are, posted and
// coalesced writes, DMA of the server on both sockets, interrupts, re-arming, masks, resets.
//
// By count, some seconds, or a minute with OUTBOARD_FULL=1.
#include <array>
#include <cstdlib>
#include <deque>
#include <random>
#include <string>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/transport.h"

namespace outboard::protocol_test {
namespace {

using Clock = std::chrono::steady_clock;
using vfio_user::Write;

constexpr std::uint32_t kVcpus = 8;
constexpr std::uint64_t kSlots = 256;  // of 8 bytes, for each vCPU and each kind

// BAR0: registers that a reset leaves alone, others that it clears, and a doorbell for each vCPU
// whose value is the number of its interrupt so far.
constexpr std::uint64_t kKept = 0;
constexpr std::uint64_t kCleared = 0x8000;
constexpr std::uint64_t kDoorbells = 0xf000;
constexpr std::uint64_t kEnd = 0x10000;
static_assert(kKept + kVcpus * kSlots * 8 <= kCleared);
static_assert(kCleared + kVcpus * (kSlots / 2) * 8 <= kDoorbells);

// Guest memory: two windows without a file that adjoin in the middle, half of each for either
// socket's DMA.
constexpr std::uint64_t kRam = 0x100000;
constexpr std::size_t kRamSize = 0x20000;

bool full() {
  return std::getenv("OUTBOARD_FULL") != nullptr;
}

// Writes and reads guest memory as a device does, and knows what must be there.
class DmaModel final {
 public:
  // Uses [base, base + size) of guest memory.
  DmaModel(std::uint64_t base, std::size_t size, std::uint32_t seed)
      : base_(base), bytes_(size), random_(seed) {}

  struct Request {
    Command command;
    Bytes payload;
    Bytes reply;  // what it must be
  };
  Request next() {
    const std::uint64_t count = 1 + random_() % (random_() % 16 == 0 ? 9000 : 64);
    const std::uint64_t at = random_() % (bytes_.size() - count);
    const Bytes place = bytes_of(wire::DmaAccess{base_ + at, count});
    const auto first = bytes_.begin() + static_cast<std::ptrdiff_t>(at);
    const auto last = first + static_cast<std::ptrdiff_t>(count);
    if (random_() % 2 == 0) return {Command::dma_read, place, place + Bytes(first, last)};
    for (auto byte = first; byte != last; ++byte) *byte = static_cast<std::byte>(random_());
    return {Command::dma_write, place + Bytes(first, last), place};
  }
  [[nodiscard]] std::uint64_t base() const { return base_; }
  [[nodiscard]] const Bytes& bytes() const { return bytes_; }

 private:
  const std::uint64_t base_;
  Bytes bytes_;
  std::mt19937 random_;
};

struct Counts {
  std::atomic<std::uint64_t> reads{0}, writes{0}, resets{0}, rings{0}, rearms{0}, twin_dma{0},
      main_dma{0}, wrong{0}, failed{0};
};

class Storm final {
 public:
  explicit Storm(bool twin)
      : twin_(twin), low_(kRam, kRamSize / 2), high_(kRam + kRamSize / 2, kRamSize / 2) {
    for (auto& event : events_) event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    Script script;
    script.twin = twin;
    script.keep_log = false;
    script.capabilities = R"("max_msg_fds":3,"max_data_xfer_size":1048576,"write_multiple":true)";
    script.regions[0].size = kEnd;
    script.on_write = [this](const wire::RegionAccess& access, std::span<const std::byte> data) {
      rang(access, data);
    };
    script.on_reply = [this](Peer& peer, Incoming& m) { answered(peer, m); };
    for (const Command command : {Command::region_read, Command::region_write,
                                  Command::region_write_multi, Command::device_set_irqs}) {
      script.on[command] = [this](Peer& peer, Incoming& m) { serve(peer, m); };
    }
    script.on[Command::device_reset] = [this](Peer& peer, Incoming& m) {
      Bytes& bar = server_->memory()[0];
      std::fill(bar.begin() + kCleared, bar.begin() + kDoorbells, std::byte{0});
      peer.reply(m.header);
    };
    server_.emplace(std::move(script));
    const DmaWindow windows[] = {low_.window, high_.window};
    // A socket that is soon full, so that posted writes are queued, and go out several at a time.
    auto transport = server_->client_end();
    const int tiny = 1;
    REQUIRE(::setsockopt(transport->fd(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof tiny) == 0);
    auto client = Client::adopt(std::move(transport), quick_options(60s));
    REQUIRE(client);
    client_ = std::move(*client);
    REQUIRE(client_->attach(windows));
    rearm();
  }

  void run(std::uint64_t rounds, Clock::time_point until) {
    const EventLoop loop(*client_);
    std::vector<std::thread> vcpus;
    std::atomic<bool> stop{false};
    for (std::uint32_t v = 0; v < kVcpus; ++v) {
      vcpus.emplace_back([this, v, rounds, until] { vcpu(v, rounds, until); });
    }
    std::thread dma;
    if (twin_) dma = std::thread([this, &stop] { twin_dma(stop); });
    for (auto& vcpu : vcpus) vcpu.join();
    stop = true;
    if (dma.joinable()) dma.join();
    // One access of each kind after all others: the last posted writes have been executed.
    Bytes word(8);
    check(client_->region_read(0, kKept, word).has_value());
    while (in_flight_.load() != 0 && client_->alive()) std::this_thread::yield();
    CHECK(client_->alive());
    client_->close();  // nobody writes to memory any more
    server_->stop();
    compare();
  }

  [[nodiscard]] const Counts& counts() const { return counts_; }
  [[nodiscard]] Client::Counters messages() const { return client_->counters(); }

 private:
  void check(bool truth) {
    if (!truth) ++counts_.failed;
  }

  // --- the vCPUs ---

  void vcpu(std::uint32_t v, std::uint64_t rounds, Clock::time_point until) {
    std::mt19937_64 random(v + 1);
    std::array<std::uint64_t, kSlots> kept{};
    std::array<std::uint64_t, kSlots / 2> cleared{};
    std::array<std::uint64_t, kSlots / 2> ended{};  // resets, when it was written
    std::uint64_t sequence = std::uint64_t{v} << 56;
    const std::uint64_t kept_at = kKept + v * kSlots * 8;
    const std::uint64_t cleared_at = kCleared + v * (kSlots / 2) * 8;
    for (std::uint64_t i = 0; rounds != 0 ? i < rounds : Clock::now() < until; ++i) {
      const std::uint64_t slot = random() % kSlots;
      const Write how = random() % 4 == 0 ? Write::wait : Write::may_post;
      switch (random() % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
          kept[slot] = ++sequence;
          put(kept_at + slot * 8, bytes_of(kept[slot]), how);
          break;
        case 4: {  // a narrow write into one of them
          const std::uint64_t width = std::uint64_t{1} << (random() % 3);
          const std::uint64_t byte = random() % (8 / width) * width;
          auto word = bytes_of(kept[slot]);
          Bytes part(width, static_cast<std::byte>(random()));
          std::copy(part.begin(), part.end(), word.begin() + static_cast<std::ptrdiff_t>(byte));
          kept[slot] = struct_at<std::uint64_t>(word);
          put(kept_at + slot * 8 + byte, part, how);
          break;
        }
        case 5:
        case 6:
        case 7: {
          const std::uint64_t n = slot / 2;
          ended[n] = resets_ended_.load();
          cleared[n] = ++sequence;
          put(cleared_at + n * 8, bytes_of(cleared[n]), how);
          break;
        }
        case 8:
        case 9:
        case 10:
          wrong_unless(get(kept_at + slot * 8) == kept[slot]);
          break;
        case 11:
        case 12: {
          const std::uint64_t n = slot / 2;
          const std::uint64_t got = get(cleared_at + n * 8);
          // 0 only if some reset may have come after the write.
          wrong_unless(got == cleared[n] || (got == 0 && resets_begun_.load() != ended[n]));
          if (got == 0) cleared[n] = 0;
          break;
        }
        case 13:
          ring(v);
          break;
        case 14:
          if (random() % 8 == 0) {
            rearm();
          } else {
            check(client_->mask_irqs(wire::kIrqMsix, v, 1).has_value());
            check(client_->unmask_irqs(wire::kIrqMsix, v, 1).has_value());
          }
          break;
        default:
          if (random() % 64 == 0) reset();
          for (int n = random() % 8 == 0 ? 100 : 0; n > 0; --n) {  // as a driver fills a queue
            const std::uint64_t next = random() % kSlots;
            kept[next] = ++sequence;
            put(kept_at + next * 8, bytes_of(kept[next]), Write::may_post);
          }
          break;
      }
    }
    for (std::uint64_t slot = 0; slot < kSlots; ++slot) {
      wrong_unless(get(kept_at + slot * 8) == kept[slot]);
    }
  }

  void put(std::uint64_t offset, const Bytes& data, Write how) {
    ++counts_.writes;
    check(client_->region_write(0, offset, data, how).has_value());
  }
  std::uint64_t get(std::uint64_t offset) {
    ++counts_.reads;
    Bytes data(8);
    check(client_->region_read(0, offset, data).value_or(0) == 8);
    return struct_at<std::uint64_t>(data);
  }
  void wrong_unless(bool truth) {
    if (!truth) ++counts_.wrong;
  }
  void ring(std::uint32_t v) {
    ++counts_.rings;
    put(kDoorbells + v * 8, bytes_of(++rung_[v]), Write::may_post);
  }
  void reset() {
    ++resets_begun_;
    check(client_->reset().has_value());
    ++resets_ended_;
    ++counts_.resets;
  }
  // The same eventfds once more, in messages of three: no interrupt is lost by it.
  void rearm() {
    std::vector<int> fds;
    for (const auto& event : events_) fds.push_back(event.get());
    check(client_->arm_irqs(wire::kIrqMsix, 0, fds).has_value());
    ++counts_.rearms;
  }

  // --- the server, on its own thread ---

  void serve(Peer& peer, Incoming& m) {
    if (m.command() == Command::device_set_irqs) {
      const auto set = m.as<wire::SetIrqs>();
      for (std::size_t i = 0; i < m.fds.size(); ++i) armed_[set.start + i] = std::move(m.fds[i]);
    }
    if (served_ % 256 == 255) std::this_thread::sleep_for(2ms);  // and its socket fills
    // DMA on the main socket, around the reply to a command.
    if (++served_ % 3 == 0 && requests_.size() < 32) {
      DmaModel::Request request = main_model_.next();
      peer.request(static_cast<std::uint16_t>(m.header.id + served_ % 2), request.command,
                   request.payload);
      requests_.push_back(std::move(request));
      ++in_flight_;
      if (!twin_) {  // as libvfio-user: the next message is the reply
        const auto reply = peer.next();
        REQUIRE(reply);
        REQUIRE(reply->is_reply());
        answered(peer, *reply);
      }
    }
    server_->behave(peer, m);
  }

  void answered(Peer&, const Incoming& m) {
    if (requests_.empty()) {
      ++counts_.wrong;
      return;
    }
    wrong_unless(m.header.error == 0 && m.command() == requests_.front().command &&
                 m.payload == requests_.front().reply);
    requests_.pop_front();
    --in_flight_;
    ++counts_.main_dma;
  }

  void rang(const wire::RegionAccess& access, std::span<const std::byte> data) {
    if (access.offset < kDoorbells) return;
    const std::size_t vector = (access.offset - kDoorbells) / 8;
    // Posted writes arrive in order, none twice and none left out.
    wrong_unless(struct_at<std::uint64_t>(data) == ++heard_[vector]);
    check(::eventfd_write(armed_[vector].get(), 1) == 0);
  }

  void twin_dma(const std::atomic<bool>& stop) {
    Peer& peer = server_->twin();
    std::uint16_t id = 0;
    while (!stop) {
      // Some at once, then their replies.
      std::deque<DmaModel::Request> sent;
      for (int i = 0; i < 8; ++i) {
        sent.push_back(twin_model_.next());
        check(peer.request(++id, sent.back().command, sent.back().payload));
      }
      for (std::uint16_t i = 0; i < 8; ++i) {
        const auto reply = peer.next();
        if (!reply) {
          ++counts_.failed;
          return;
        }
        wrong_unless(reply->header.id == static_cast<std::uint16_t>(id - 7 + i) &&
                     reply->header.error == 0 && reply->payload == sent[i].reply);
        ++counts_.twin_dma;
      }
    }
  }

  // Memory and interrupts at the end.
  void compare() {
    for (const DmaModel* const model : {&main_model_, &twin_model_}) {
      for (std::size_t i = 0; i < model->bytes().size(); ++i) {
        const std::size_t at = model->base() - kRam + i;
        const Bytes& half = at < kRamSize / 2 ? low_.bytes : high_.bytes;
        wrong_unless(half[at % (kRamSize / 2)] == model->bytes()[i]);
      }
    }
    for (std::uint32_t v = 0; v < kVcpus; ++v) {
      eventfd_t signals = 0;
      ::eventfd_read(events_[v].get(), &signals);
      wrong_unless(signals == rung_[v] && heard_[v] == rung_[v]);
    }
  }

  const bool twin_;
  Counts counts_;
  Memory low_, high_;
  std::array<UniqueFd, kVcpus> events_;
  std::array<std::uint64_t, kVcpus> rung_{};  // each its vCPU's own
  std::atomic<std::uint64_t> resets_begun_{0}, resets_ended_{0};

  // the server's thread
  std::array<UniqueFd, kVcpus> armed_;
  std::array<std::uint64_t, kVcpus> heard_{};
  std::deque<DmaModel::Request> requests_;
  std::uint32_t served_ = 0;
  // The main socket's share of memory lies across the seam of the windows.
  DmaModel main_model_{kRam + kRamSize / 4, kRamSize / 2, 1};
  DmaModel twin_model_{kRam + kRamSize / 4 * 3, kRamSize / 4, 2};

  std::atomic<std::uint64_t> in_flight_{0};
  std::optional<ScriptedServer> server_;
  std::unique_ptr<Client> client_;
};

void storm(bool twin) {
  const Steady steady;
  Storm storm(twin);
  const auto begin = Clock::now();
  storm.run(full() ? 0 : 1500, begin + 60s);
  const Counts& counts = storm.counts();
  CHECK(counts.wrong == 0);
  CHECK(counts.failed == 0);
  CHECK(counts.resets > 0);
  CHECK(counts.rearms > 1);
  CHECK(counts.rings > 100);
  CHECK(counts.main_dma > 100);
  CHECK((counts.twin_dma > 0) == twin);
  const auto messages = storm.messages();
  // Posting is off in single flight; with a twin socket most of the writes take it.
  CHECK((messages.posted > 0) == twin);
  const std::uint64_t multi = messages.sent[static_cast<std::size_t>(Command::region_write_multi)];
  CHECK((multi > 0) == twin);
  CHECK(messages.timeouts == 0);
  CHECK(messages.late_replies == 0);
  const auto said = [](const std::atomic<std::uint64_t>& count, const char* what) {
    return std::to_string(count.load()) + what;
  };
  const std::string text =
      said(counts.reads, " reads, ") + said(counts.writes, " writes (") +
      std::to_string(messages.posted) + " posted, " + std::to_string(multi) + " WRITE_MULTI), " +
      said(counts.main_dma, " DMA messages on the main socket, ") +
      said(counts.twin_dma, " on the twin socket, ") + said(counts.rings, " interrupts, ") +
      said(counts.rearms, " armings, ") + said(counts.resets, " resets, ") +
      said(counts.wrong, " wrong values in ") +
      std::to_string(
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count()) +
      " ms";
  MESSAGE(text);
}

TEST_CASE(
    "storm: 8 vCPUs, DMA on both sockets, posted writes, interrupts and resets: every value is "
    "right") {
  storm(true);
}

TEST_CASE("storm: the same with one socket, one request at a time: every value is right") {
  storm(false);
}

}  // namespace
}  // namespace outboard::protocol_test
