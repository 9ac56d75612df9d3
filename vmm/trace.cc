#include "vmm/trace.h"

#include <utility>

namespace outboard::vmm {

vfio_user::MessageObserver& Trace::add_device(std::string name) {
  return devices_.emplace_back(std::move(name), static_cast<std::uint32_t>(devices_.size()),
                               messages_);
}

}  // namespace outboard::vmm
