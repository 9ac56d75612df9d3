#include "vfio_user/dma_server.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <mutex>
#include <string>

#include "vfio_user/codec.h"
#include "vfio_user/ordered_copy.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

template <wire::Struct T>
void put(std::vector<std::byte>& bytes, std::size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

void put_header(std::vector<std::byte>& reply, const wire::Header& request, int error) {
  wire::Header header{request.id, request.command, static_cast<std::uint32_t>(reply.size()),
                      wire::kTypeReply, static_cast<std::uint32_t>(error)};
  if (error != 0) header.flags |= wire::kError;
  put(reply, 0, header);
}

}  // namespace

Result<void> DmaServer::add(const DmaWindow& window, std::uint32_t max_windows) {
  if (window.size == 0 || window.address + (window.size - 1) < window.address) {
    return fail(Error::Kind::invalid, EINVAL, "the window is empty or ends beyond 2^64");
  }
  if (!window.host.empty() && window.host.size() != window.size) {
    return fail(Error::Kind::invalid, EINVAL, "its view in this process has another size");
  }
  const std::lock_guard lock(mutex_);
  if (windows_.size() >= max_windows) {
    return fail(
        Error::Kind::limit, ENOSPC,
        "the server takes at most " + std::to_string(max_windows) + " DMA windows (max_dma_maps)");
  }
  const auto next = windows_.lower_bound(window.address);
  const bool hits_next = next != windows_.end() && next->first - window.address < window.size;
  const bool hits_last = next != windows_.begin() &&
                         window.address - std::prev(next)->first < std::prev(next)->second.size;
  if (hits_next || hits_last) {
    return fail(Error::Kind::invalid, EEXIST, "it overlaps another window");
  }
  windows_.emplace(window.address, window);
  return {};
}

bool DmaServer::remove(std::uint64_t address, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  const auto found = windows_.find(address);
  if (found == windows_.end() || found->second.size != size) return false;
  windows_.erase(found);
  return true;
}

bool DmaServer::has(std::uint64_t address, std::uint64_t size) const {
  const std::shared_lock lock(mutex_);
  const auto found = windows_.find(address);
  return found != windows_.end() && found->second.size == size;
}

void DmaServer::clear() {
  const std::lock_guard lock(mutex_);
  windows_.clear();
}

bool DmaServer::is_dma(const wire::Header& header) {
  const auto command = static_cast<wire::Command>(header.command);
  return command == wire::Command::dma_read || command == wire::Command::dma_write;
}

template <class Piece>
int DmaServer::visit(std::uint64_t address, std::uint64_t size, bool write, Piece each) const {
  if (address + (size - 1) < address) return EFAULT;
  const std::shared_lock lock(mutex_);
  for (const bool copying : {false, true}) {  // first look at all of it, then touch any of it
    std::uint64_t at = address;
    std::uint64_t left = size;
    while (left > 0) {
      auto found = windows_.upper_bound(at);
      if (found == windows_.begin()) return EFAULT;
      const DmaWindow& window = std::prev(found)->second;
      const std::uint64_t inside = at - window.address;
      if (inside >= window.size || window.host.empty()) return EFAULT;
      if (write ? !window.writable : !window.readable) return EPERM;
      const std::uint64_t piece = std::min(left, window.size - inside);
      if (copying) each(window.host.subspan(inside, piece), at - address);
      at += piece;
      left -= piece;
    }
  }
  return 0;
}

int DmaServer::access(const IncomingMessage& message, std::vector<std::byte>& reply) const {
  const bool write = static_cast<wire::Command>(message.header.command) == wire::Command::dma_write;
  const auto request = read_struct<wire::DmaAccess>(message.payload);
  if (!request || !message.fds.empty() || request->count == 0) return EINVAL;
  const auto data = message.payload.subspan(sizeof(wire::DmaAccess));
  // Two comparisons: a count close to 2^64 must not wrap into a valid size.
  if (request->count > max_transfer_) return E2BIG;
  if (data.size() != (write ? request->count : 0)) return EINVAL;

  constexpr std::size_t kData = sizeof(wire::Header) + sizeof(wire::DmaAccess);
  reply.resize(kData + (write ? 0 : request->count));
  put(reply, sizeof(wire::Header), *request);
  return visit(request->address, request->count, write,
               [&](std::span<std::byte> memory, std::uint64_t at) {
                 if (write) {
                   copy_in_order(memory, data.subspan(at, memory.size()));
                 } else {
                   std::memcpy(reply.data() + kData + at, memory.data(), memory.size());
                 }
               });
}

int DmaServer::answer(const IncomingMessage& message, std::vector<std::byte>& reply) const {
  const int error = is_dma(message.header) ? access(message, reply) : ENOSYS;
  if ((message.header.flags & wire::kNoReply) != 0) {
    reply.clear();
    return error;
  }
  if (error != 0) reply.resize(sizeof(wire::Header));
  put_header(reply, message.header, error);
  return error;
}

void DmaServer::serve(const IncomingMessage& message, std::vector<std::byte>& reply,
                      MessageObserver* observer) const {
  if (observer == nullptr) {
    static_cast<void>(answer(message, reply));
    return;
  }
  ObservedMessage told = ObservedMessage::from_peer(message.header, message.payload);
  const int error = answer(message, reply);
  told.bytes_out = static_cast<std::uint32_t>(reply.size());
  told.end = reply.empty() ? ObservedMessage::End::posted
             : error != 0  ? ObservedMessage::End::refused
                           : ObservedMessage::End::answered;
  told.ended = std::chrono::steady_clock::now();
  observer->message(told);
}

}  // namespace outboard::vfio_user
