// The body of the DSDT: what the guest cannot find by itself.
#pragma once

#include "boot/acpi.h"
#include "boot/aml.h"

namespace outboard::boot {

// AML without the table header.
[[nodiscard]] aml::Bytes build_dsdt(const AcpiDescription& description);

}  // namespace outboard::boot
