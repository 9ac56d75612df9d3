#pragma once

// The checks that the parsers of requests and of replies share. Private to the room: not installed.

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>

#include "vfio_user/codec.h"

namespace outboard::vfio_user::codec {

inline tl::unexpected<Error> malformed(wire::Command command, const std::string& why) {
  return fail(Error::Kind::protocol, EINVAL,
              std::string("malformed ") + wire::name_of(command) + ": " + why);
}

inline tl::unexpected<Error> too_short(wire::Command command, std::size_t bytes,
                                       std::size_t needed) {
  return malformed(
      command, std::to_string(bytes) + " bytes of payload, it must have " + std::to_string(needed));
}

/// The structure, and whatever follows it.
template <wire::Struct T>
Result<WithData<T>> at_least(wire::Command command, std::span<const std::byte> payload) {
  const auto value = read_struct<T>(payload);
  if (!value) return too_short(command, payload.size(), sizeof(T));
  return WithData<T>{*value, payload.subspan(sizeof(T))};
}

/// The structure and nothing else.
template <wire::Struct T>
Result<T> exactly(wire::Command command, std::span<const std::byte> payload) {
  const auto value = read_struct<T>(payload);
  if (!value || payload.size() != sizeof(T)) return too_short(command, payload.size(), sizeof(T));
  return *value;
}

/// The structure and exactly `count` bytes behind it.
template <wire::Struct T>
Result<WithData<T>> with_exact_data(wire::Command command, std::span<const std::byte> payload) {
  auto value = at_least<T>(command, payload);
  if (value && value->data.size() != value->fixed.count) {
    return malformed(command, std::to_string(value->data.size()) +
                                  " bytes of data, the count says " +
                                  std::to_string(value->fixed.count));
  }
  return value;
}

}  // namespace outboard::vfio_user::codec
