#include "vfio_user/sender.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>

namespace outboard::vfio_user {

namespace {

std::size_t total(std::span<const iovec> parts) {
  std::size_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  return bytes;
}

}  // namespace

Result<Sender::Outcome> Sender::send(std::span<const iovec> parts, std::span<const int> fds,
                                     std::size_t limit) {
  const std::lock_guard lock(mutex_);
  return send_locked(parts, fds, limit);
}

Result<Sender::Outcome> Sender::send_locked(std::span<const iovec> parts, std::span<const int> fds,
                                            std::size_t limit) {
  if (auto flushed = flush_locked(); !flushed) return tl::make_unexpected(flushed.error());
  const std::size_t size = total(parts);
  std::size_t sent = 0;
  if (queue_.empty()) {
    auto result = transport_.send(parts, fds, kNoWait);
    if (!result) {
      // A descriptor that cannot be passed spoils this message only; anything else spoils the
      // stream.
      if (fds.empty()) result.error().kind = Error::Kind::closed;
      return tl::make_unexpected(std::move(result.error()));
    }
    sent = *result;
    sent_.fetch_add(sent, std::memory_order_relaxed);
    if (sent == size) return Outcome::sent;
  }
  if (sent == 0 && queued_bytes() + size > limit) {
    return fail(
        Error::Kind::limit, EAGAIN,
        "the server does not read: " + std::to_string(queued_bytes()) + " bytes wait to be sent");
  }
  if (auto queued = enqueue(parts, sent, fds); !queued) {
    return tl::make_unexpected(std::move(queued.error()));
  }
  return Outcome::queued;
}

Result<void> Sender::enqueue(std::span<const iovec> parts, std::size_t sent,
                             std::span<const int> fds) {
  Message message;
  message.bytes.reserve(total(parts));
  for (const iovec& part : parts) {
    const auto* const bytes = static_cast<const std::byte*>(part.iov_base);
    message.bytes.insert(message.bytes.end(), bytes, bytes + part.iov_len);
  }
  message.sent = sent;
  if (sent == 0) {  // else the fds went with the first byte
    for (const int fd : fds) {
      UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
      if (!copy) return fail(Error::Kind::system, errno, "cannot duplicate a descriptor to queue");
      message.fds.push_back(std::move(copy));
    }
  }
  queued_.fetch_add(message.bytes.size() - sent, std::memory_order_release);
  queue_.push_back(std::move(message));
  return {};
}

Result<Sender::Outcome> Sender::post(const Posted& write, bool coalesce) {
  const std::lock_guard lock(mutex_);
  if (coalesce) {
    if (auto flushed = flush_locked(); !flushed) return tl::make_unexpected(flushed.error());
  }
  wire::Header header{write.id, 0, 0, wire::kTypeCommand | wire::kNoReply, 0};
  if (coalesce && !queue_.empty()) {
    Message& last = queue_.back();
    const bool grows = last.multi_entries > 0 && last.multi_entries < kMaxMultiEntries &&
                       last.sent == 0 &&
                       sizeof(wire::WriteMulti) + (last.multi_entries + 1) * sizeof write.entry <=
                           write.payload_limit;
    if (grows) {
      ++last.multi_entries;
      const auto* const entry = reinterpret_cast<const std::byte*>(&write.entry);
      last.bytes.insert(last.bytes.end(), entry, entry + sizeof write.entry);
      const auto size = static_cast<std::uint32_t>(last.bytes.size());
      std::memcpy(last.bytes.data() + offsetof(wire::Header, size), &size, sizeof size);
      const wire::WriteMulti multi{last.multi_entries};
      std::memcpy(last.bytes.data() + sizeof header, &multi, sizeof multi);
      queued_.fetch_add(sizeof write.entry, std::memory_order_release);
      AtomicCounters::count_alone(multi_bytes_, sizeof write.entry);
      return Outcome::queued;
    }
    if (sizeof(wire::WriteMulti) + sizeof write.entry <= write.payload_limit) {
      wire::WriteMulti multi{1};
      header.command = static_cast<std::uint16_t>(wire::Command::region_write_multi);
      header.size = sizeof header + sizeof multi + sizeof write.entry;
      wire::WriteMultiEntry entry = write.entry;
      const iovec parts[] = {
          {&header, sizeof header}, {&multi, sizeof multi}, {&entry, sizeof entry}};
      if (auto queued = enqueue(parts, 0, {}); !queued) {
        return tl::make_unexpected(std::move(queued.error()));
      }
      queue_.back().multi_entries = 1;
      AtomicCounters::count_alone(multi_messages_);
      AtomicCounters::count_alone(multi_bytes_, header.size);
      return Outcome::queued;
    }
  }
  wire::RegionAccess access{write.entry.offset, write.entry.region, write.entry.count};
  header.command = static_cast<std::uint16_t>(wire::Command::region_write);
  header.size = static_cast<std::uint32_t>(sizeof header + sizeof access + access.count);
  wire::WriteMultiEntry entry = write.entry;
  const iovec parts[] = {
      {&header, sizeof header}, {&access, sizeof access}, {entry.data, access.count}};
  auto sent = send_locked(parts, {}, kRequestBacklog);
  if (sent) {
    AtomicCounters::count_alone(posted_alone_);
    AtomicCounters::count_alone(posted_alone_bytes_, header.size);
  }
  return sent;
}

void Sender::add_posted_to(ClientCounters& sum) const {
  const auto load = [](const AtomicCounters::Counter& c) {
    return c.load(std::memory_order_relaxed);
  };
  constexpr auto kWrite = static_cast<std::size_t>(wire::Command::region_write);
  constexpr auto kMulti = static_cast<std::size_t>(wire::Command::region_write_multi);
  sum.posted_alone += load(posted_alone_);
  sum.bytes_out[kWrite] += load(posted_alone_bytes_);
  sum.sent[kMulti] += load(multi_messages_);
  sum.bytes_out[kMulti] += load(multi_bytes_);
}

Result<void> Sender::flush() {
  const std::lock_guard lock(mutex_);
  return flush_locked();
}

Result<void> Sender::flush_locked() {
  while (!queue_.empty()) {
    Message& first = queue_.front();
    const iovec rest{first.bytes.data() + first.sent, first.bytes.size() - first.sent};
    std::vector<int> fds;
    if (first.sent == 0) {
      for (const UniqueFd& fd : first.fds) fds.push_back(fd.get());
    }
    auto result = transport_.send({&rest, 1}, fds, kNoWait);
    if (!result) {
      result.error().kind = Error::Kind::closed;
      return tl::make_unexpected(std::move(result.error()));
    }
    sent_.fetch_add(*result, std::memory_order_relaxed);
    queued_.fetch_sub(*result, std::memory_order_release);
    if (*result > 0) first.fds.clear();
    first.sent += *result;
    if (first.sent < first.bytes.size()) return {};
    queue_.pop_front();
  }
  return {};
}

}  // namespace outboard::vfio_user
