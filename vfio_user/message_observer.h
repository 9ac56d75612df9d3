// What a client tells about each message to whoever measures it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/uio.h>

#include "vfio_user/wire.h"

namespace outboard::vfio_user {

// One request with its reply, of either direction. A posted write is one, also where it shares a
// REGION_WRITE_MULTI with others.
struct ObservedMessage {
  enum class End : std::uint8_t {
    answered,
    refused,    // an error reply
    posted,     // no reply was wanted
    timed_out,  // none came in time
    lost,       // the connection ended first
  };

  static constexpr std::uint32_t kNoIndex = ~std::uint32_t{0};

  std::chrono::steady_clock::time_point sent{};   // or received, of a request of the server
  std::chrono::steady_clock::time_point ended{};  // the reply was read or sent; posted: = sent
  std::uint64_t address = 0;                      // in the region, or of the DMA; bytes
  std::uint64_t size = 0;                         // bytes accessed, or vectors; 0: not that kind
  std::uint32_t index = kNoIndex;                 // region, or interrupt type
  std::uint32_t bytes_out = 0;                    // on the wire, headers included
  std::uint32_t bytes_in = 0;
  wire::Command command{};
  std::uint16_t id = 0;
  bool from_server = false;
  End end = End::answered;

  // One of ours that is sent now; `size` is of the whole message, `body` its payload.
  static ObservedMessage request(wire::Command command, std::uint16_t id, std::uint32_t size,
                                 std::span<const iovec> body);
  static ObservedMessage posted_write(std::chrono::steady_clock::time_point sent, std::uint16_t id,
                                      const wire::WriteMultiEntry& entry);
  // One of the server's that has come now.
  static ObservedMessage from_peer(const wire::Header& header, std::span<const std::byte> payload);

 private:
  // Fills index, address and size from the first bytes of a request's payload.
  void set_place(std::span<const std::byte> payload);
};

// Called once a message is over, by whichever thread knows it first, several at a time, and while
// locks of the client are held: it returns soon, waits for nothing and does not call the client.
// Outlives the client.
class MessageObserver {
 public:
  virtual void message(const ObservedMessage& message) = 0;

 protected:
  ~MessageObserver() = default;
};

}  // namespace outboard::vfio_user
