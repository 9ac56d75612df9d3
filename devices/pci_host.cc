#include "devices/pci_host.h"

namespace outboard::devices {

PciHost::PciHost() : slots_{} {
  slots_[0] = &bridge_;
}

void PciHost::add(std::uint32_t slot, PciFunction& function) {
  slots_.at(slot) = &function;
}

void PciHost::reset() {
  config_ports_.reset();
  for (PciFunction* const function : slots_) {
    if (function != nullptr) function->reset();
  }
}

}  // namespace outboard::devices
