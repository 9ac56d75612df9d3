#include <string>

#include <doctest/doctest.h>
#include <libfdt.h>

#include "boot/fdt.h"
#include "tests/unit/boot_tools.h"

using namespace outboard::boot;

namespace {

FdtDescription machine() {
  FdtDescription description;
  description.cpu_compatible = "arm,armv8";
  description.cpu_ids = {0, 1, 0x100};
  description.memory = {{0x4000'0000, 0x2000'0000, MemoryRange::Kind::ram},
                        {0x3f00'0000, 0x1000, MemoryRange::Kind::reserved},
                        {0x1'0000'0000, 0x1'0000'0000, MemoryRange::Kind::ram}};
  description.command_line = "console=ttyS0 root=/dev/nvme0n1";
  description.initrd = FdtDescription::Initrd{0x4800'0000, 0x12345};
  description.pci = FdtDescription::Pci{.ecam_base = 0x3000'0000,
                                        .last_bus = 0,
                                        .pio = {0x3eff'0000, 0x1'0000},
                                        .mmio32 = {0x1000'0000, 0x2000'0000},
                                        .mmio64 = {0x80'0000'0000, 0x40'0000'0000}};
  return description;
}

constexpr const char* kGolden = R"(/dts-v1/;

/ {
	#address-cells = <0x02>;
	#size-cells = <0x02>;
	model = "outboard";
	compatible = "linux,dummy-virt";

	chosen {
		bootargs = "console=ttyS0 root=/dev/nvme0n1";
		linux,initrd-start = <0x00 0x48000000>;
		linux,initrd-end = <0x00 0x48012345>;
	};

	memory@40000000 {
		device_type = "memory";
		reg = <0x00 0x40000000 0x00 0x20000000>;
	};

	memory@100000000 {
		device_type = "memory";
		reg = <0x01 0x00 0x01 0x00>;
	};

	cpus {
		#address-cells = <0x01>;
		#size-cells = <0x00>;

		cpu@0 {
			device_type = "cpu";
			compatible = "arm,armv8";
			reg = <0x00>;
		};

		cpu@1 {
			device_type = "cpu";
			compatible = "arm,armv8";
			reg = <0x01>;
		};

		cpu@100 {
			device_type = "cpu";
			compatible = "arm,armv8";
			reg = <0x100>;
		};
	};

	pcie@30000000 {
		compatible = "pci-host-ecam-generic";
		device_type = "pci";
		#address-cells = <0x03>;
		#size-cells = <0x02>;
		reg = <0x00 0x30000000 0x00 0x100000>;
		bus-range = <0x00 0x00>;
		linux,pci-domain = <0x00>;
		ranges = <0x1000000 0x00 0x00 0x00 0x3eff0000 0x00 0x10000 0x2000000 0x00 0x10000000 0x00 0x10000000 0x00 0x20000000 0x43000000 0x80 0x00 0x80 0x00 0x40 0x00>;
		dma-coherent;
	};
};
)";

}  // namespace

TEST_CASE("Devicetree 0.4: the tree is sound and tells CPUs, memory, chosen and the PCI host") {
  const auto tree = build_fdt(machine());
  REQUIRE(tree.has_value());
  CHECK(fdt_check_full(tree->data(), tree->size()) == 0);
  const auto number = [&](const char* path, const char* property) {
    int size = 0;
    const void* value =
        fdt_getprop(tree->data(), fdt_path_offset(tree->data(), path), property, &size);
    REQUIRE(size == 8);
    return fdt64_ld(static_cast<const fdt64_t*>(value));
  };
  CHECK(number("/chosen", "linux,initrd-start") == 0x4800'0000);
  CHECK(number("/chosen", "linux,initrd-end") == 0x4801'2345);
  CHECK(fdt_path_offset(tree->data(), "/memory@3f000000") < 0);
  CHECK(fdt_path_offset(tree->data(), "/cpus/cpu@100") > 0);
}

TEST_CASE("dtc: the tree reads back as the golden source, without a warning") {
  if (!samples::Workshop::has("dtc")) return;
  const auto tree = build_fdt(machine());
  REQUIRE(tree.has_value());
  CHECK(samples::device_tree_source(*tree) == kGolden);
}

TEST_CASE(
    "device tree: without initrd and PCI there is no such node; ids above 32 bits take two cells") {
  FdtDescription description = machine();
  description.initrd.reset();
  description.pci.reset();
  description.cpu_ids = {0, 0x1'0000'0000};
  const auto tree = build_fdt(description);
  REQUIRE(tree.has_value());
  CHECK(fdt_check_full(tree->data(), tree->size()) == 0);
  int size = 0;
  CHECK(fdt_getprop(tree->data(), fdt_path_offset(tree->data(), "/chosen"), "linux,initrd-start",
                    &size) == nullptr);
  CHECK(fdt_path_offset(tree->data(), "/cpus/cpu@100000000") > 0);
  CHECK(fdt_getprop(tree->data(), fdt_path_offset(tree->data(), "/cpus/cpu@0"), "reg", &size) !=
        nullptr);
  CHECK(size == 8);
}

TEST_CASE("device tree: a command line with a zero byte is refused") {
  FdtDescription description = machine();
  description.command_line = std::string("a\0b", 3);
  CHECK_FALSE(build_fdt(description).has_value());
}
