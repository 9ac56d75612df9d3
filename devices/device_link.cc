#include "devices/device_link.h"

#include <algorithm>
#include <cerrno>

namespace outboard::devices {

using vfio_user::Error;

DeviceLink::DeviceLink(std::shared_ptr<vfio_user::Client> client, Options options)
    : options_(std::move(options)),
      log_("device '" + options_.name + "'", options_.log),
      client_(std::move(client)),
      identity_(client_->server().resume),
      counted_(client_) {
  if (options_.hold && identity_ && client_->posts()) posted_ = std::make_unique<PostedWrites>();
}

DeviceLink::~DeviceLink() {
  stop();
}

void DeviceLink::say_trouble(const std::string& text) {
  if (log_.line(Severity::warning, text)) trouble_told_ = true;
}

void DeviceLink::say_ready(const std::string& text) {
  if (trouble_told_.exchange(false)) {
    log_.end(Severity::info, "ready: " + text);
  } else {
    log_.line(Severity::info, "ready: " + text);
  }
}

// --- accesses that meet a loss ---

DeviceLink::Patience::~Patience() {
  if (!began_) return;
  const std::lock_guard lock(link_.mutex_);
  link_.stall_.add(Clock::now() - *began_);
}

bool DeviceLink::wait(Patience& patience) {
  std::unique_lock lock(mutex_);
  if (up_) return true;
  if (!options_.hold || stopped_ || !may_wait_ || state_ == LinkState::failed) return false;
  const Clock::time_point now = Clock::now();
  const Clock::time_point until =
      std::min(hold_until_, patience.began_.value_or(now) + *options_.hold);
  if (now >= until) return false;
  if (!patience.began_) patience.began_ = now;
  ++counters_.waiting;
  changed_.wait_until(lock, until,
                      [&] { return up_ || stopped_ || !may_wait_ || state_ == LinkState::failed; });
  --counters_.waiting;
  return up_;
}

bool DeviceLink::was_reset_since(std::uint64_t generation) const {
  const std::lock_guard lock(mutex_);
  return reset_before_ > generation;
}

bool DeviceLink::is_fence(std::uint32_t region, std::uint64_t offset, std::size_t size) const {
  return region == fence_region_ && std::ranges::any_of(fences_, [&](std::uint64_t fence) {
           return offset <= fence && fence < offset + size;
         });
}

vfio_user::Result<std::size_t> DeviceLink::read(vfio_user::Client& client, std::uint32_t region,
                                                std::uint64_t offset, std::span<std::byte> into) {
  const std::uint64_t asked = posted_ != nullptr ? posted_->now() : 0;
  auto got = client.region_read(region, offset, into);
  if (posted_ != nullptr && (got || got.error().kind == Error::Kind::server)) {
    posted_->answered(asked);
  }
  return got;
}

vfio_user::Result<void> DeviceLink::write(vfio_user::Client& client, std::uint32_t region,
                                          std::uint64_t offset, std::span<const std::byte> from) {
  using vfio_user::Write;
  if (posted_ == nullptr || from.size() > 8) {
    return client.region_write(region, offset, from, Write::may_post);
  }
  if (is_fence(region, offset, from.size())) {
    const std::uint64_t asked = posted_->now();
    auto done = client.region_write(region, offset, from, Write::wait);
    if (done || done.error().kind == Error::Kind::server) posted_->answered(asked);
    return done;
  }
  PostedWrites::Slot* const slot = posted_->note(region, offset, from);
  auto done = client.region_write(region, offset, from, Write::may_post);
  if (done) posted_->sent(slot);
  return done;
}

void DeviceLink::note_answer() {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != LinkState::slow) return;
    state_ = LinkState::ready;
    slow_.store(false, std::memory_order_relaxed);
  }
  say_ready("its server answers again");
}

void DeviceLink::note_timeout(const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != LinkState::ready) return;
    state_ = LinkState::slow;
    ++counters_.slow_spells;
    slow_.store(true, std::memory_order_relaxed);
  }
  say_trouble("slow: " + why.message);
}

// Inside the gate: the generation cannot change.
void DeviceLink::died_inside(vfio_user::Client& client) {
  lose(generation_, client.death());
}

// --- states ---

void DeviceLink::lose(std::uint64_t generation, const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!up_ || stopped_ || generation != generation_) return;
    gate_.close();
    up_ = false;
    slow_.store(false, std::memory_order_relaxed);
    state_ = options_.hold ? LinkState::down : LinkState::failed;
    reason_ = why;
    lost_at_ = Clock::now();
    if (options_.hold) hold_until_ = lost_at_ + *options_.hold;
    told_.clear();
    hold_passed_ = false;
    ++counters_.losses;
  }
  changed_.notify_all();
  if (options_.hold) {
    say_trouble("down: " + why.message + "; its accesses wait up to " +
                std::to_string(options_.hold->count()) + " ms");
  }
  if (options_.on_down) options_.on_down(why);
}

bool DeviceLink::usable() {
  if (!up() || client_ == nullptr) return false;
  if (client_->alive()) return true;
  lose(generation_, client_->death());
  return false;
}

void DeviceLink::quiet() {
  if (client_ == nullptr) return;
  client_->close();
  gate_.wait_until_empty();
}

void DeviceLink::retire() {
  if (client_ == nullptr) return;
  quiet();
  {
    const std::lock_guard lock(mutex_);
    past_ += client_->counters();
    counted_.reset();
  }
  client_.reset();
}

void DeviceLink::install(std::shared_ptr<vfio_user::Client> client) {
  bool stopped = false;
  {
    const std::lock_guard lock(mutex_);
    counted_ = client;
    stopped = stopped_;
  }
  client_ = std::move(client);
  if (stopped) client_->close();
}

bool DeviceLink::resumes() const {
  const auto& next = client_->server().resume;
  return identity_ && next && next->resumed && next->id == identity_->id &&
         (posted_ == nullptr || !posted_->overflowed());
}

vfio_user::Result<void> DeviceLink::repeat_posted() {
  if (posted_ == nullptr) return {};
  const std::uint64_t asked = posted_->now();
  for (const PostedWrites::Write& write : posted_->list()) {
    repeated_.fetch_add(1, std::memory_order_relaxed);
    auto done =
        client_->region_write(write.region, write.offset, std::span(write.bytes).first(write.size),
                              vfio_user::Write::wait);
    if (!done && !client_->alive()) return done;
  }
  posted_->answered(asked);
  return {};
}

bool DeviceLink::open(bool resumed) {
  if (!client_->alive()) return false;
  Clock::duration took{};
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return false;
    ++generation_;
    if (!resumed) {
      reset_before_ = generation_;
      if (posted_ != nullptr) posted_->clear();
    }
    identity_ = client_->server().resume;
    if (options_.hold && identity_ && client_->posts() && posted_ == nullptr) {
      posted_ = std::make_unique<PostedWrites>();
    }
    ++(resumed ? counters_.resumes : counters_.resets);
    state_ = LinkState::ready;
    up_ = true;
    took = Clock::now() - lost_at_;
    recovery_.add(took);
    gate_.open();
  }
  changed_.notify_all();
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(took).count();
  say_ready("its server is back after " + std::to_string(milliseconds) + " ms" +
            (resumed ? " and goes on where it was" : "; the device was reset"));
  return true;
}

void DeviceLink::set_trying() {
  const std::lock_guard lock(mutex_);
  ++counters_.attempts;
  if (state_ == LinkState::down) state_ = LinkState::reconnecting;
}

void DeviceLink::set_waiting(const std::string& why) {
  bool is_news = false;
  bool hold_passed = false;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != LinkState::reconnecting) return;
    state_ = LinkState::down;
    is_news = std::exchange(told_, why) != why;
    hold_passed = !hold_passed_ && Clock::now() >= hold_until_;
    hold_passed_ = hold_passed_ || hold_passed;
  }
  if (is_news) log_.line(Severity::info, "down: not back yet: " + why);
  if (hold_passed) {
    say_trouble("down: not back within the hold; the guest reads all ones until it is");
  }
}

void DeviceLink::fail(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    state_ = LinkState::failed;
    reason_.message = why;
  }
  changed_.notify_all();
  if (!options_.log) return;  // past the limit: it is the last line
  options_.log(Severity::error,
               "device '" + options_.name + "': failed: " + why + "; the guest reads all ones");
}

void DeviceLink::let_wait(bool may) {
  {
    const std::lock_guard lock(mutex_);
    may_wait_ = may;
  }
  changed_.notify_all();
}

void DeviceLink::stop() {
  std::shared_ptr<vfio_user::Client> client;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    up_ = false;
    if (reason_.code == 0) reason_ = {Error::Kind::closed, ESHUTDOWN, "the machine ends"};
    gate_.close();
    client = counted_;
  }
  changed_.notify_all();
  if (client) client->close();
}

LinkCounters DeviceLink::counters() const {
  const std::lock_guard lock(mutex_);
  LinkCounters out = counters_;
  out.state = state_;
  out.unserved = unserved_.load(std::memory_order_relaxed);
  out.repeated = repeated_.load(std::memory_order_relaxed);
  out.recovery = recovery_.spread();
  out.stall = stall_.spread();
  return out;
}

vfio_user::ClientCounters DeviceLink::messages() const {
  const std::lock_guard lock(mutex_);
  vfio_user::ClientCounters sum = past_;
  if (counted_) sum += counted_->counters();
  return sum;
}

Error DeviceLink::reason() const {
  const std::lock_guard lock(mutex_);
  return {Error::Kind::closed, reason_.code, reason_.message};
}

std::uint64_t DeviceLink::generation() const {
  const std::lock_guard lock(mutex_);
  return generation_;
}

DeviceLink::Clock::time_point DeviceLink::lost_at() const {
  const std::lock_guard lock(mutex_);
  return lost_at_;
}

}  // namespace outboard::devices
