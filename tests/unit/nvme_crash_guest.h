// A guest whose disk's server is killed again and again. It keeps several I/O queues busy with
// commands whose outcome it knows, takes completions only when it is interrupted, and counts each;
// to a server that died it behaves as a monitor does: the same memory, the configuration, the
// vectors, and once more what was not answered.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <sys/mman.h>

#include "tests/unit/nvme_victim.h"
#include "vfio_user/client.h"

namespace outboard::nvme::test {

inline Status status_of_entry(const Completion& entry) {
  return Driver::answer(entry).status;
}

class CrashGuest {
 public:
  static constexpr u64 kBlocks = 512;
  static constexpr u16 kPairs = 2;  // busy with I/O; one more comes and goes

  // `plan` draws how each server dies.
  CrashGuest(VictimOptions options, u64 seed, std::function<FailPlan(std::mt19937_64&)> plan);
  ~CrashGuest();
  CrashGuest(const CrashGuest&) = delete;
  CrashGuest& operator=(const CrashGuest&) = delete;

  void start();   // controller and queues
  void step();    // some commands, then some completions
  void settle();  // until nothing is in flight
  void verify();  // reads every block
  void reset();   // CC.EN, with commands in flight
  void manage();  // one of the admin commands that change the state
  void kill_now() { victim_->kill(); }
  // SIGTERM while attached: the successor goes on all the same.
  void restart_in_order();
  // The client goes as it should; the server ends.
  void leave();

  u64 lives() const { return lives_; }
  u64 completed() const { return completed_; }
  // Of each server but the first: from its start to the first command completed.
  const std::vector<std::chrono::microseconds>& restarts() const { return restarts_; }
  const std::vector<u64>& model() const { return model_; }

 private:
  static constexpr u64 kBase = 0x10'0000;
  static constexpr u64 kSize = 4 << 20;
  static constexpr u32 kEntries = 16;
  static constexpr u64 kShadowAt = 0x8000;  // in memory_, as the next two
  static constexpr u64 kAdminDataAt = 0xa000;
  static constexpr u64 kSlotsAt = 0x20'0000;
  static constexpr u32 kSlotSize = 4096;
  struct Operation {
    u8 opcode = 0;
    u64 start = 0;
    u32 blocks = 0;
    u64 generation = 0;
    u32 slot = 0;
    bool event = false;  // an asynchronous event request
  };
  struct Queue {
    u32 tail = 0, head = 0, phase = 1;
    u32 sent = 0;  // not completed
    u16 next_id = 0;
    bool going = false;  // its deletion is under way
  };
  using Key = std::pair<u16, u16>;  // queue, command id

  static u64 queue_at(u16 id, bool completion) {
    return 0x1'0000u * (id + 1u) + (completion ? 0x8000u : 0);
  }
  u32& word(u64 at) { return *reinterpret_cast<u32*>(memory_.data() + at); }
  u64 random(u64 below) { return random_() % below; }

  void recover();
  bool attach();
  bool restore();
  void write32(u64 offset, u32 value);
  u32 read32(u64 offset);
  template <class Attempt>
  void retry(Attempt attempt);
  void wait_until_ready(bool ready);
  void ring(u16 queue, bool completion, u32 value);
  bool shadowed(u16 queue) const {
    return queue != 0 && shadow_set_ && options_.mode == DoorbellMode::shadow;
  }
  void push(u16 queue, Command command, Operation operation);
  bool submit_io(u16 queue);
  void take_completions();
  void complete(const Completion& entry, u16 cq);
  void wait_for_completions();
  Completion run(Command command);
  void create_pair(u16 id);
  void delete_pair(u16 id);
  void fill(std::byte* at, u64 start, u32 blocks, u64 generation);
  bool holds(const std::byte* at, u64 block, u64 generation) const;

  VictimOptions options_;
  std::function<FailPlan(std::mt19937_64&)> plan_;
  std::mt19937_64 random_;
  vfio_user::UniqueFd memory_fd_;
  std::span<std::byte> memory_;
  std::array<vfio_user::UniqueFd, kVictimQueues + 1> vectors_;
  std::unique_ptr<Victim> victim_;
  std::unique_ptr<vfio_user::Client> client_;
  std::vector<vfio_user::IoFd> io_fds_;
  u32* page_ = nullptr;
  std::string id_;
  bool shadow_set_ = false;

  std::map<u16, Queue> queues_;
  std::map<Key, Operation> sent_;
  std::map<u16, Completion> answers_;  // of admin commands
  std::vector<u32> free_slots_;
  std::vector<u64> model_ = std::vector<u64>(kBlocks);  // generation of each block; 0: zeros
  std::vector<bool> busy_ = std::vector<bool>(kBlocks);
  u64 generation_ = 0;
  u64 lives_ = 0;
  u64 completed_ = 0;
  std::chrono::steady_clock::time_point started_;
  bool timed_ = true;  // this server has completed a command
  std::vector<std::chrono::microseconds> restarts_;
};

inline CrashGuest::CrashGuest(VictimOptions options, u64 seed,
                              std::function<FailPlan(std::mt19937_64&)> plan)
    : options_(std::move(options)),
      plan_(std::move(plan)),
      random_(seed),
      memory_fd_(memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  REQUIRE(ftruncate(memory_fd_.get(), kSize) == 0);
  REQUIRE(fcntl(memory_fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  void* base = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_.get(), 0);
  REQUIRE(base != MAP_FAILED);
  memory_ = {static_cast<std::byte*>(base), kSize};
  for (auto& vector : vectors_) vector.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (u32 i = 0; i < 64; ++i) free_slots_.push_back(i);
}

inline CrashGuest::~CrashGuest() {
  client_.reset();
  if (page_ != nullptr) munmap(page_, kDoorbellPageSize);
  munmap(memory_.data(), memory_.size());
}

// A server that lives until the client is through with it, however many that takes.
inline void CrashGuest::recover() {
  do {
    client_.reset();
    if (victim_) {
      pollfd death{victim_->death_fd(), POLLIN, 0};
      REQUIRE_MESSAGE(poll(&death, 1, 10'000) == 1, "the server refused what it may not refuse");
      const int status = victim_->wait();
      REQUIRE_MESSAGE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
                      "the server ended by itself: " << status);
    }
    ++lives_;
    options_.plan = plan_(random_);
    started_ = std::chrono::steady_clock::now();
    timed_ = lives_ == 1;
    victim_ = std::make_unique<Victim>(options_);
  } while (!victim_->ready() || !attach() || !restore());
}

inline bool CrashGuest::attach() {
  vfio_user::ClientOptions options;
  options.offer_twin_socket = false;
  auto connected = vfio_user::Client::connect(victim_->path, options);
  if (!connected) return false;
  client_ = std::move(*connected);
  const auto& resume = client_->server().resume;
  REQUIRE(resume.has_value());
  if (id_.empty()) id_ = resume->id;
  REQUIRE(resume->id == id_);
  // Nobody has seen the first server before its client came.
  if (lives_ > 1) REQUIRE(resume->resumed);
  const vfio_user::DmaWindow window{
      .address = kBase, .size = kSize, .fd = memory_fd_.get(), .host = memory_};
  auto device = client_->attach({&window, 1});
  if (!device) return false;
  if (page_ != nullptr) munmap(page_, kDoorbellPageSize);
  page_ = nullptr;
  if (options_.mode != DoorbellMode::page) return true;
  void* page = mmap(nullptr, kDoorbellPageSize, PROT_READ | PROT_WRITE, MAP_SHARED,
                    device->regions[0].area_fd(0),
                    static_cast<off_t>(device->regions[0].file_offset + reg::doorbells));
  REQUIRE(page != MAP_FAILED);
  page_ = static_cast<u32*>(page);
  return true;
}

inline bool CrashGuest::restore() {
  const auto config = [&](u64 offset, u16 value) {
    return client_->region_write(7, offset, std::as_bytes(std::span(&value, 1))).has_value();
  };
  std::vector<int> fds;
  for (const auto& vector : vectors_) fds.push_back(vector.get());
  // Either order is a client's right.
  const bool early = random(2) == 0;
  if (early && !client_->arm_irqs(2, 0, fds)) return false;
  if (!config(0x52, 0x8000) || !config(0x04, 0x0006)) return false;
  if (!early && !client_->arm_irqs(2, 0, fds)) return false;
  // The last write of each doorbell, but of a queue whose deletion was sent after it: the answer to
  // the admin queue's doorbell covers that.
  for (const auto& [id, queue] : queues_) {
    if (page_ != nullptr || shadowed(id) || queue.going) continue;
    for (const auto& [index, value] : {std::pair{2u * id, queue.tail}, {2u * id + 1, queue.head}}) {
      const u64 offset = reg::doorbells + 4 * index;
      if (!client_->region_write(0, offset, std::as_bytes(std::span(&value, 1)))) return false;
    }
  }
  io_fds_.clear();
  if (options_.mode == DoorbellMode::shadow) {
    auto offered = client_->region_io_fds(0);
    if (!offered) return false;
    io_fds_ = std::move(*offered);
  }
  return true;
}

// Until a server has answered.
template <class Attempt>
void CrashGuest::retry(Attempt attempt) {
  while (!client_ || !attempt()) recover();
}

inline void CrashGuest::write32(u64 offset, u32 value) {
  retry([&] {
    return client_->region_write(0, offset, std::as_bytes(std::span(&value, 1))).has_value();
  });
}

inline u32 CrashGuest::read32(u64 offset) {
  u32 value = 0;
  retry([&] {
    return client_->region_read(0, offset, std::as_writable_bytes(std::span(&value, 1)))
        .has_value();
  });
  return value;
}

// As long as CAP.TO allows, twice: a disk may be busy.
inline void CrashGuest::wait_until_ready(bool ready) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (((read32(reg::csts) & kCstsReady) != 0) != ready) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
  }
}

inline void CrashGuest::ring(u16 queue, bool completion, u32 value) {
  const u32 index = 2u * queue + (completion ? 1 : 0);
  if (page_ != nullptr) {
    std::atomic_ref<u32>(page_[index]).store(value);
    return;
  }
  if (!shadowed(queue)) return write32(reg::doorbells + 4 * index, value);
  const std::atomic_ref<u32> mine(word(kShadowAt + 4 * index));
  const std::atomic_ref<u32> event(word(kShadowAt + 0x1000 + 4 * index));
  const auto old = static_cast<u16>(mine.load());
  mine.store(value);
  const auto at = static_cast<u16>(event.load());
  const auto next = static_cast<u16>(value);
  if (static_cast<u16>(next - at - 1) >= static_cast<u16>(next - old)) return;
  for (const auto& offer : io_fds_) {
    if (offer.offset == reg::doorbells + 4 * index) {
      REQUIRE(eventfd_write(offer.fd.get(), 1) == 0);
      return;
    }
  }
  write32(reg::doorbells + 4 * index, value);
}

inline void CrashGuest::start() {
  shadow_set_ = false;
  queues_.clear();
  std::memset(memory_.data() + queue_at(0, true), 0, kEntries * 16);
  retry([] { return true; });
  write32(reg::aqa, (kEntries - 1) << 16 | (kEntries - 1));
  write32(reg::asq, static_cast<u32>(kBase + queue_at(0, false)));
  write32(reg::asq + 4, 0);
  write32(reg::acq, static_cast<u32>(kBase + queue_at(0, true)));
  write32(reg::acq + 4, 0);
  write32(reg::cc, 6u << 16 | 4u << 20 | 1);
  queues_[0] = {};
  wait_until_ready(true);
  REQUIRE((read32(reg::csts) & kCstsFatal) == 0);
  for (int i = 0; i < 2; ++i) {
    push(0, Driver::admin(AdminOpcode::async_event_request), {.event = true});
  }
  for (u16 id = 1; id <= kPairs; ++id) create_pair(id);
  if (options_.mode == DoorbellMode::shadow) {
    std::memset(memory_.data() + kShadowAt, 0, 0x2000);
    Command buffer = Driver::admin(AdminOpcode::doorbell_buffer_config);
    buffer.pointer1 = kBase + kShadowAt;
    buffer.pointer2 = kBase + kShadowAt + 0x1000;
    REQUIRE(status_of_entry(run(buffer)) == Status::success);
    shadow_set_ = true;
    retry([&] {
      auto offered = client_->region_io_fds(0);
      if (offered) io_fds_ = std::move(*offered);
      return offered.has_value();
    });
  }
}

inline void CrashGuest::create_pair(u16 id) {
  std::memset(memory_.data() + queue_at(id, true), 0, kEntries * 16);
  Command cq = Driver::admin(AdminOpcode::create_io_cq);
  cq.pointer1 = kBase + queue_at(id, true);
  cq.dw10 = (kEntries - 1) << 16 | id;
  cq.dw11 = u32{id} << 16 | 3;
  REQUIRE(status_of_entry(run(cq)) == Status::success);
  Command sq = Driver::admin(AdminOpcode::create_io_sq);
  sq.pointer1 = kBase + queue_at(id, false);
  sq.dw10 = (kEntries - 1) << 16 | id;
  sq.dw11 = u32{id} << 16 | 1;
  REQUIRE(status_of_entry(run(sq)) == Status::success);
  queues_[id] = {};
}

inline void CrashGuest::delete_pair(u16 id) {
  while (queues_[id].sent != 0) wait_for_completions();
  queues_[id].going = true;
  Command sq = Driver::admin(AdminOpcode::delete_io_sq);
  sq.dw10 = id;
  const Completion gone = run(sq);
  REQUIRE(status_of_entry(gone) == Status::success);
  queues_.erase(id);
  Command cq = Driver::admin(AdminOpcode::delete_io_cq);
  cq.dw10 = id;
  REQUIRE(status_of_entry(run(cq)) == Status::success);
}

inline void CrashGuest::push(u16 id, Command command, Operation operation) {
  Queue& queue = queues_[id];
  do {
    command.id = queue.next_id++ % 64;
  } while (sent_.contains({id, command.id}));
  operation.opcode = command.opcode;
  sent_[{id, command.id}] = operation;
  ++queue.sent;
  std::memcpy(memory_.data() + queue_at(id, false) + 64u * queue.tail, &command, 64);
  queue.tail = (queue.tail + 1) % kEntries;
  ring(id, false, queue.tail);
}

inline void CrashGuest::fill(std::byte* at, u64 start, u32 blocks, u64 generation) {
  for (u64 i = 0; i < blocks * u64{64}; ++i) {
    const u64 value = generation == 0 ? 0 : i % 2 == 0 ? generation : start + i / 64;
    std::memcpy(at + 8 * i, &value, 8);
  }
}

inline bool CrashGuest::holds(const std::byte* at, u64 block, u64 generation) const {
  for (u64 i = 0; i < 64; ++i) {
    u64 value;
    std::memcpy(&value, at + 8 * i, 8);
    if (value != (generation == 0 ? 0 : i % 2 == 0 ? generation : block)) return false;
  }
  return true;
}

// A command on blocks that no other one in flight touches, so that its outcome is known.
inline bool CrashGuest::submit_io(u16 id) {
  if (free_slots_.empty() || queues_[id].sent + 1 >= kEntries) return false;
  Operation operation;
  operation.blocks = static_cast<u32>(1 + random(8));
  operation.start = random(kBlocks - operation.blocks + 1);
  for (u64 i = 0; i < operation.blocks; ++i) {
    if (busy_[operation.start + i]) return false;
  }
  operation.slot = free_slots_.back();
  std::byte* data = memory_.data() + kSlotsAt + u64{operation.slot} * kSlotSize;
  const u64 kind = random(10);
  const IoOpcode opcode = kind < 5   ? IoOpcode::write
                          : kind < 7 ? IoOpcode::read
                          : kind < 8 ? IoOpcode::flush
                          : kind < 9 ? IoOpcode::write_zeroes
                                     : IoOpcode::compare;
  Command command = Driver::io(opcode, 1, operation.start, operation.blocks);
  command.pointer1 = kBase + kSlotsAt + u64{operation.slot} * kSlotSize;
  command.pointer2 = 0;
  switch (opcode) {
    case IoOpcode::write:
      operation.generation = ++generation_;
      fill(data, operation.start, operation.blocks, operation.generation);
      if (random(4) == 0) command.dw12 |= 1u << 30;  // FUA
      break;
    case IoOpcode::read:
      std::memset(data, 0xee, kSlotSize);
      break;
    case IoOpcode::compare:
      for (u64 i = 0; i < operation.blocks; ++i) {
        fill(data + 512 * i, operation.start + i, 1, model_[operation.start + i]);
      }
      break;
    default:
      break;
  }
  free_slots_.pop_back();
  for (u64 i = 0; i < operation.blocks; ++i) busy_[operation.start + i] = true;
  push(id, command, operation);
  return true;
}

inline void CrashGuest::take_completions() {
  // As an interrupt handler does: no interrupt, no look.
  for (u16 id = 0; id < vectors_.size(); ++id) {
    eventfd_t count;
    if (eventfd_read(vectors_[id].get(), &count) != 0 || !queues_.contains(id)) continue;
    bool any = false;
    while (true) {
      Queue& queue = queues_[id];
      const u64 at = queue_at(id, true) + 16u * queue.head;
      const u32 last = std::atomic_ref<u32>(word(at + 12)).load();
      if ((last >> 16 & 1) != queue.phase) break;
      Completion entry;
      std::memcpy(&entry, memory_.data() + at, 16);
      queue.head = (queue.head + 1) % kEntries;
      if (queue.head == 0) queue.phase ^= 1;
      any = true;
      complete(entry, id);
    }
    if (any) ring(id, true, queues_[id].head);
  }
}

inline void CrashGuest::complete(const Completion& entry, u16 cq) {
  REQUIRE(entry.sq_id == cq);
  const auto found = sent_.find({entry.sq_id, entry.command_id});
  REQUIRE_MESSAGE(found != sent_.end(), "completed twice, or never sent: queue "
                                            << entry.sq_id << " id " << entry.command_id);
  const Operation operation = found->second;
  sent_.erase(found);
  --queues_[cq].sent;
  ++completed_;
  if (!std::exchange(timed_, true)) {
    restarts_.push_back(std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - started_));
  }
  REQUIRE_MESSAGE(!operation.event, "there was no event, and it says " << std::hex << entry.dw0);
  if (cq == 0) {
    answers_[entry.command_id] = entry;
    return;
  }
  REQUIRE_MESSAGE(status_of_entry(entry) == Status::success, "opcode " << int{operation.opcode}
                                                                       << " status " << std::hex
                                                                       << (entry.status >> 1));
  const std::byte* data = memory_.data() + kSlotsAt + u64{operation.slot} * kSlotSize;
  for (u64 i = 0; i < operation.blocks; ++i) {
    const u64 block = operation.start + i;
    busy_[block] = false;
    switch (static_cast<IoOpcode>(operation.opcode)) {
      case IoOpcode::write:
        model_[block] = operation.generation;
        break;
      case IoOpcode::write_zeroes:
        model_[block] = 0;
        break;
      case IoOpcode::read:
        REQUIRE_MESSAGE(holds(data + 512 * i, block, model_[block]),
                        "block " << block << " is not as written");
        break;
      default:
        break;
    }
  }
  free_slots_.push_back(operation.slot);
}

// Until one has come, whoever has to die for it.
inline void CrashGuest::wait_for_completions() {
  const u64 before = completed_;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (true) {
    retry([] { return true; });
    take_completions();
    if (completed_ != before) return;
    REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline,
                    "nothing completes; in flight: " << sent_.size() << ", lives " << lives_);
    std::vector<pollfd> fds = {{victim_->death_fd(), POLLIN, 0}};
    for (const auto& vector : vectors_) fds.push_back({vector.get(), POLLIN, 0});
    REQUIRE(poll(fds.data(), fds.size(), 1000) >= 0);
    if (fds[0].revents != 0) recover();
  }
}

inline Completion CrashGuest::run(Command command) {
  push(0, command, {});
  u16 id = 0;
  std::memcpy(
      &id,
      memory_.data() + queue_at(0, false) + 64u * ((queues_[0].tail + kEntries - 1) % kEntries) + 2,
      2);
  answers_.erase(id);
  while (!answers_.contains(id)) wait_for_completions();
  return answers_[id];
}

inline void CrashGuest::step() {
  for (u64 i = random(6); i > 0; --i) submit_io(static_cast<u16>(1 + random(kPairs)));
  if (queues_.contains(3) && random(3) == 0) submit_io(3);
  take_completions();
  if (victim_->dead()) return recover();
  if (sent_.size() > 20 && random(2) == 0) wait_for_completions();
}

inline void CrashGuest::settle() {
  // The event requests stay.
  while (sent_.size() > 2) wait_for_completions();
}

inline void CrashGuest::manage() {
  switch (random(4)) {
    case 0:
      if (queues_.contains(3)) {
        delete_pair(3);
      } else {
        create_pair(3);
        if (shadow_set_) {
          retry([&] {
            auto offered = client_->region_io_fds(0);
            if (offered) io_fds_ = std::move(*offered);
            return offered.has_value();
          });
        }
      }
      return;
    case 1: {
      const u32 value = static_cast<u32>(random(2));
      Command set = Driver::admin(AdminOpcode::set_features);
      set.dw10 = static_cast<u32>(FeatureId::write_cache);
      set.dw11 = value;
      REQUIRE(status_of_entry(run(set)) == Status::success);
      Command get = Driver::admin(AdminOpcode::get_features);
      get.dw10 = set.dw10;
      REQUIRE(run(get).dw0 == value);
      return;
    }
    case 2: {
      Command identify = Driver::admin(AdminOpcode::identify);
      identify.dw10 = 1;
      identify.pointer1 = kBase + kAdminDataAt;
      std::memset(memory_.data() + kAdminDataAt, 0, 4096);
      REQUIRE(status_of_entry(run(identify)) == Status::success);
      REQUIRE(get<u32>(memory_, kAdminDataAt + 80) == kVersion14);
      return;
    }
    default: {
      Command number = Driver::admin(AdminOpcode::set_features);
      number.dw10 = static_cast<u32>(FeatureId::number_of_queues);
      // §5.21.1.7: not once there are queues.
      REQUIRE(status_of_entry(run(number)) == Status::command_sequence_error);
      return;
    }
  }
}

// What was in flight is lost, or done: its blocks hold the old or the new.
inline void CrashGuest::reset() {
  write32(reg::cc, 6u << 16 | 4u << 20);
  wait_until_ready(false);
  const auto lost = std::exchange(sent_, {});
  answers_.clear();
  for (auto& vector : vectors_) {
    eventfd_t count;
    eventfd_read(vector.get(), &count);
  }
  start();
  for (const auto& [key, operation] : lost) {
    if (key.first == 0) continue;
    free_slots_.push_back(operation.slot);
    Command read = Driver::io(IoOpcode::read, 1, operation.start, operation.blocks);
    read.pointer1 = kBase + kAdminDataAt;
    // Without the guest's own check: what it holds is found out here.
    const auto opcode = static_cast<IoOpcode>(operation.opcode);
    const bool changes = opcode == IoOpcode::write || opcode == IoOpcode::write_zeroes;
    push(1, read, {.blocks = 0, .slot = free_slots_.back()});
    free_slots_.pop_back();
    while (queues_[1].sent != 0) wait_for_completions();
    for (u64 i = 0; i < operation.blocks; ++i) {
      const u64 block = operation.start + i;
      const std::byte* at = memory_.data() + kAdminDataAt + 512 * i;
      busy_[block] = false;
      if (changes && holds(at, block, operation.generation)) model_[block] = operation.generation;
      REQUIRE(holds(at, block, model_[block]));
    }
  }
}

inline void CrashGuest::verify() {
  for (u64 block = 0; block < kBlocks; block += 8) {
    REQUIRE_FALSE(free_slots_.empty());
    Operation operation{.start = block, .blocks = 8, .slot = free_slots_.back()};
    free_slots_.pop_back();
    Command read = Driver::io(IoOpcode::read, 1, block, 8);
    read.pointer1 = kBase + kSlotsAt + u64{operation.slot} * kSlotSize;
    push(1, read, operation);
    while (queues_[1].sent + 2 >= kEntries) wait_for_completions();
  }
  settle();
}

inline void CrashGuest::restart_in_order() {
  victim_->ask_to_end();
  const int status = victim_->wait();
  // It may have died on the way out.
  const bool in_order = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  REQUIRE((in_order || killed));
  victim_.reset();
  recover();
}

inline void CrashGuest::leave() {
  client_.reset();
  victim_->ask_to_end();
  const int status = victim_->wait();
  REQUIRE_MESSAGE((WIFEXITED(status) && WEXITSTATUS(status) == 0), "status " << status);
  victim_.reset();
}

}  // namespace outboard::nvme::test
