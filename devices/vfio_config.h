// The config shadow of a vfio-user device: answers what is known here, asks the server for what
// only it knows, and tells it what it must know, when that changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "devices/access_counters.h"
#include "devices/config_policy.h"
#include "devices/guest_log.h"
#include "devices/remote_config.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock, and holds it while the server is asked.
class VfioConfig final {
 public:
  // raw: the bytes the server holds now.
  VfioConfig(const ConfigPlan& plan, std::span<const std::byte> raw, RemoteConfig& remote,
             AccessCounters& counters, GuestLog& log);

  // Guest accesses; reg and size as in PciFunction. A register the server refuses to read answers
  // what the bulk read had.
  std::uint32_t read(std::uint32_t reg, std::uint32_t size);
  void write(std::uint32_t reg, std::uint32_t size, std::uint32_t value);

  // The local registers.
  std::uint32_t peek(std::uint32_t reg, std::uint32_t size) const {
    return shadow_.read(reg, size);
  }
  void poke(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    shadow_.set(reg, size, value);
  }

  // The server's 16-bit register takes this value: one message, none when it holds it already. A
  // refusal is routine: logged, and the guest goes on.
  void forward(std::uint32_t reg, std::uint16_t value);
  // One message whatever the server holds (registers that act on a write).
  void send(std::uint32_t reg, std::uint16_t value);
  std::uint16_t held(std::uint32_t reg) const;

  // The server's bytes as read anew; the local registers stay.
  void refresh_held(std::span<const std::byte> raw);
  // The local registers back to what the guest saw first; what it wrote at the server is forgotten.
  void reset_shadow();
  void forget_writes() { written_.clear(); }
  // To a server that has come back: what the guest wrote last to the registers that are there. Not
  // to status registers, where a write clears.
  void rewrite();

 private:
  bool at_server(std::uint32_t reg) const;
  void remember(std::uint32_t reg, std::span<const std::byte> bytes);

  const ConfigSpace initial_;
  const std::vector<bool> at_server_;
  ConfigSpace shadow_;
  std::vector<std::byte> held_;
  const std::uint32_t express_status_;                       // register, 0: none
  std::map<std::uint32_t, std::vector<std::byte>> written_;  // at the server, at the guest's width
  RemoteConfig& remote_;
  AccessCounters& counters_;
  GuestLog& log_;
};

}  // namespace outboard::devices
