#include "boot/dsdt.h"

#include <array>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "boot/aml_resources.h"

namespace outboard::boot {
namespace {

using aml::Bytes;

constexpr std::uint64_t kEcamPerBus = std::uint64_t{1} << 20;
constexpr std::uint64_t kPowerButtonPressed = 0x80;  // §4.8.3.1.1: notification of PNP0C0C

// PCI Firmware 3.2 §4.5.1: the operating system says what it supports (not looked at) and asks for
// control; only the PCIe capability structure is there to control: no root port, hence no native
// hot-plug, PME, AER or LTR.
Bytes osc_method() {
  using namespace aml;
  constexpr std::uint64_t kUnrecognizedUuid = 0x04;
  constexpr std::uint64_t kUnrecognizedRevision = 0x08;
  constexpr std::uint64_t kCapabilitiesMasked = 0x10;
  constexpr std::uint64_t kPcieCapabilityControl = 0x10;
  const Bytes status = name_string("CDW1");
  const Bytes control = name_string("CDW3");
  return method("_OSC", 4,
                {create_dword_field(arg(3), integer(0), "CDW1"),
                 if_(equal(arg(0), uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")),
                     {create_dword_field(arg(3), integer(8), "CDW3"),
                      and_(control, integer(kPcieCapabilityControl), local(0)),
                      if_(not_(equal(arg(1), integer(1))),
                          {or_(status, integer(kUnrecognizedRevision), status)}),
                      if_(not_(equal(control, local(0))),
                          {or_(status, integer(kCapabilitiesMasked), status)}),
                      store(local(0), control)}),
                 else_({or_(status, integer(kUnrecognizedUuid), status)}), return_(arg(3))});
}

Bytes pci_routing(const AcpiDescription& description) {
  std::vector<Bytes> entries;
  for (const auto& irq : description.pci_irqs) {
    const std::array<Bytes, 4> entry{aml::integer(std::uint64_t{irq.slot} << 16 | 0xffff),
                                     aml::integer(irq.pin), aml::integer(0), aml::integer(irq.gsi)};
    entries.push_back(aml::package(entry));
  }
  return aml::name("_PRT", aml::package(entries));
}

Bytes pci_host(const AcpiDescription& description) {
  using namespace aml;
  std::vector<Bytes> resources{bus_window(0, description.last_bus), io(0xcf8, 8)};
  const auto& [pio, mmio32, mmio64] =
      std::tie(description.pio, description.mmio32, description.mmio64);
  if (pio.size != 0) resources.push_back(io_window(pio.base, pio.size));
  if (mmio32.size != 0) resources.push_back(memory_window32(mmio32.base, mmio32.size));
  if (mmio64.size != 0) resources.push_back(memory_window64(mmio64.base, mmio64.size));
  std::vector<Bytes> body{name("_HID", eisa_id("PNP0A08")),
                          name("_CID", eisa_id("PNP0A03")),
                          name("_SEG", integer(0)),
                          name("_BBN", integer(0)),
                          name("_UID", integer(0)),
                          name("_CRS", resource_template(resources)),
                          osc_method()};
  if (!description.pci_irqs.empty()) body.push_back(pci_routing(description));
  return device("PCI0", body);
}

// The ECAM window must be claimed by a motherboard resource, or Linux does not use it (PCI Firmware
// 3.2 §4.1.2). The ports of the power block are claimed with it.
Bytes motherboard(const AcpiDescription& description) {
  using namespace aml;
  const std::set<std::uint16_t> ports{description.sleep_control_port, description.sleep_status_port,
                                      description.reset_port};
  std::vector<Bytes> resources{
      memory_fixed(description.ecam_base, kEcamPerBus * (description.last_bus + 1u))};
  for (const std::uint16_t port : ports) {
    if (port != 0) resources.push_back(io(port, 1));
  }
  return device("MBRD", {name("_HID", eisa_id("PNP0C02")), name("_UID", integer(0)),
                         name("_CRS", resource_template(resources))});
}

Bytes uart(const AcpiDescription::Uart& uart) {
  using namespace aml;
  return device(
      "COM1",
      {name("_HID", eisa_id("PNP0501")), name("_UID", integer(0)), name("_DDN", string("COM1")),
       name("_CRS", resource_template({io(uart.port, 8), edge_interrupt(uart.gsi)}))});
}

// Generic Event Device (§5.6.9): its one interrupt is the power button.
Bytes event_device(std::uint32_t gsi) {
  using namespace aml;
  return device(
      "GED0",
      {name("_HID", string("ACPI0013")), name("_UID", integer(0)),
       name("_CRS", resource_template({edge_interrupt(gsi)})),
       method("_EVT", 1,
              {if_(equal(arg(0), integer(gsi)), {notify("\\_SB.PWRB", kPowerButtonPressed)})})});
}

Bytes processor(std::size_t index) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const std::string path{'C', kDigits[index >> 8 & 0xf], kDigits[index >> 4 & 0xf],
                         kDigits[index & 0xf]};
  return aml::device(
      path, {aml::name("_HID", aml::string("ACPI0007")), aml::name("_UID", aml::integer(index))});
}

Bytes power_off_state() {
  const std::array<Bytes, 4> values{aml::integer(kSleepTypeOff), aml::integer(0), aml::integer(0),
                                    aml::integer(0)};
  return aml::name("\\_S5", aml::package(values));
}

}  // namespace

Bytes build_dsdt(const AcpiDescription& description) {
  using namespace aml;
  Bytes processors;
  for (std::size_t i = 0; i < description.apic_ids.size(); ++i) append(processors, processor(i));
  return concat(
      {power_off_state(),
       scope("\\_SB", {pci_host(description), motherboard(description),
                       description.uart ? uart(*description.uart) : Bytes{},
                       device("PWRB", {name("_HID", eisa_id("PNP0C0C")), name("_UID", integer(0))}),
                       event_device(description.ged_gsi), processors})});
}

}  // namespace outboard::boot
