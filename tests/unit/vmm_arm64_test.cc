// The arm64 machine as far as no KVM is needed, on any host: address map, GIC, device tree.
#include <algorithm>
#include <cstring>
#include <string>

#include <doctest/doctest.h>
#include <libfdt.h>

#include "tests/unit/boot_tools.h"
#include "vmm/aarch64/guest_tree.h"
#include "vmm/aarch64/host_pages.h"
#include "vmm/aarch64/layout.h"

using namespace outboard;
using namespace outboard::vmm;
namespace arm = outboard::vmm::aarch64;

namespace {

arch::MemoryLayout layout_of(std::uint64_t memory, unsigned bits = 40) {
  auto layout = arm::memory_layout(memory, bits);
  REQUIRE(layout);
  return *layout;
}

std::vector<std::byte> tree_of(const arch::GuestDescription& description, std::uint64_t memory) {
  auto tree = arm::guest_tree(description, layout_of(memory), std::nullopt);
  REQUIRE_MESSAGE(tree, tree.error().message);
  CHECK(fdt_check_full(tree->data(), tree->size()) == 0);
  return *tree;
}

constexpr const char* kGolden = R"(/dts-v1/;

/ {
	#address-cells = <0x02>;
	#size-cells = <0x02>;
	model = "outboard";
	compatible = "linux,dummy-virt";
	interrupt-parent = <0x01>;

	chosen {
		bootargs = "console=ttyS0 root=/dev/nvme0n1";
		stdout-path = "serial0";
		linux,initrd-start = <0x00 0x5ffe0000>;
		linux,initrd-end = <0x00 0x5fff2345>;
	};

	memory@40000000 {
		device_type = "memory";
		reg = <0x00 0x40000000 0x00 0x20000000>;
	};

	cpus {
		#address-cells = <0x01>;
		#size-cells = <0x00>;

		cpu@0 {
			device_type = "cpu";
			compatible = "arm,armv8";
			reg = <0x00>;
			enable-method = "psci";
		};

		cpu@1 {
			device_type = "cpu";
			compatible = "arm,armv8";
			reg = <0x01>;
			enable-method = "psci";
		};
	};

	psci {
		compatible = "arm,psci-1.0\0arm,psci-0.2";
		method = "hvc";
	};

	timer {
		compatible = "arm,armv8-timer";
		always-on;
		interrupts = <0x01 0x0d 0x04 0x01 0x0e 0x04 0x01 0x0b 0x04 0x01 0x0a 0x04>;
	};

	interrupt-controller@8000000 {
		compatible = "arm,gic-v3";
		interrupt-controller;
		#interrupt-cells = <0x03>;
		#address-cells = <0x02>;
		#size-cells = <0x02>;
		ranges;
		reg = <0x00 0x8000000 0x00 0x10000 0x00 0x80a0000 0x00 0x40000>;
		phandle = <0x01>;

		msi-controller@8080000 {
			compatible = "arm,gic-v3-its";
			msi-controller;
			#msi-cells = <0x01>;
			reg = <0x00 0x8080000 0x00 0x20000>;
			phandle = <0x02>;
		};
	};

	aliases {
		serial0 = "/serial@9000000";
	};

	serial@9000000 {
		compatible = "ns16550a";
		reg = <0x00 0x9000000 0x00 0x1000>;
		reg-shift = <0x00>;
		reg-io-width = <0x01>;
		clock-frequency = <0x1c2000>;
		interrupts = <0x00 0x01 0x04>;
	};

	gpio-keys {
		compatible = "gpio-keys";

		power {
			label = "Power Button";
			linux,code = <0x74>;
			interrupts = <0x00 0x02 0x01>;
		};
	};

	pcie@c000000 {
		compatible = "pci-host-ecam-generic";
		device_type = "pci";
		#address-cells = <0x03>;
		#size-cells = <0x02>;
		reg = <0x00 0xc000000 0x00 0x100000>;
		bus-range = <0x00 0x00>;
		linux,pci-domain = <0x00>;
		ranges = <0x1000000 0x00 0x00 0x00 0xb000000 0x00 0x10000 0x2000000 0x00 0x10000000 0x00 0x10000000 0x00 0x30000000 0x43000000 0x01 0x00 0x01 0x00 0x40 0x00>;
		dma-coherent;
		msi-map = <0x00 0x02 0x00 0x10000>;
		#interrupt-cells = <0x01>;
		interrupt-map-mask = <0xf800 0x00 0x00 0x07>;
		interrupt-map = <0x800 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x10 0x04 0x1000 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x11 0x04 0x1800 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x12 0x04 0x2000 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x13 0x04 0x2800 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x14 0x04 0x3000 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x15 0x04 0x3800 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x16 0x04 0x4000 0x00 0x00 0x01 0x01 0x00 0x00 0x00 0x17 0x04>;
	};
};
)";

}  // namespace

TEST_CASE("arm64: hosts with pages of 4 and 16 KiB are fit, 64 KiB are refused in one line") {
  CHECK(arm::check_host_pages(4096));
  CHECK(arm::check_host_pages(16384));
  const auto refused = arm::check_host_pages(65536);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().status == ExitStatus::no_kvm);
  CHECK(refused.error().message ==
        "this host's kernel has pages of 64 KiB, outboard runs with 4 and 16 KiB; start a kernel "
        "with such pages");
}

TEST_CASE("arm64: RAM is one window from 1 GiB up, a multiple of 2 MiB") {
  for (const std::uint64_t size : {64 * kMiB, 3 * kGiB + 2 * kMiB, 64 * kGiB}) {
    const auto windows = arm::ram_windows(size);
    REQUIRE(windows.size() == 1);
    CHECK(windows[0].address == kGiB);
    CHECK(windows[0].size == size);
    CHECK(windows[0].file_offset == 0);
  }
}

TEST_CASE("arm64: nothing of the machine overlaps anything else") {
  const auto layout = layout_of(6 * kGiB);
  const arch::Wiring wiring = arm::wiring();
  struct Range {
    std::uint64_t base, size;
  };
  std::vector<Range> all{{arm::kDistributor, arm::kDistributorSize},
                         {arm::kIts, arm::kItsSize},
                         {arm::kRedistributors, kMaxVcpus * arm::kRedistributorSize},
                         {wiring.uart.base, arm::kUartSize},
                         {wiring.power.base, 0x1000},
                         {arm::kPortWindow, arm::kPortWindowSize},
                         {layout.ecam_base, arm::kEcamSize},
                         {layout.mmio32.base, layout.mmio32.size},
                         {layout.ram[0].address, layout.ram[0].size},
                         {layout.mmio64.base, layout.mmio64.size}};
  std::ranges::sort(all, {}, &Range::base);
  for (std::size_t i = 1; i < all.size(); ++i) {
    CHECK(all[i].base >= all[i - 1].base + all[i - 1].size);
  }
  CHECK(wiring.uart.space == devices::Space::mmio);
  CHECK_FALSE(wiring.config_ports);
  // Pages of a server never cover the machine's own addresses.
  for (const Range& range : all) {
    if (range.base >= layout.mmio32.base) continue;
    CHECK(std::ranges::any_of(layout.reserved, [&](const devices::AddressWindow& window) {
      return range.base >= window.base && range.base + range.size <= window.end();
    }));
  }
}

TEST_CASE("arm64: the 64-bit window is above RAM, 1 GiB aligned, inside the guest's addresses") {
  for (const unsigned bits : {36U, 40U}) {
    for (const std::uint64_t size : {64 * kMiB, 3 * kGiB, 10 * kGiB}) {
      const auto layout = layout_of(size, bits);
      CHECK(layout.mmio64.base % kGiB == 0);
      CHECK(layout.mmio64.base >= std::max(4 * kGiB, kGiB + size));
      CHECK(layout.mmio64.end() <= std::uint64_t{1} << bits);
    }
  }
  const auto none = arm::memory_layout(64 * kGiB, 36);
  REQUIRE_FALSE(none);
  CHECK(none.error().status == ExitStatus::memory);
  CHECK(none.error().message.find("36 address bits") != std::string::npos);
}

TEST_CASE("arm64: every fixed interrupt is a pin of its own, below the messages' GSIs") {
  std::vector<std::uint32_t> gsis{arm::wiring().uart_gsi, arm::wiring().power_button_gsi};
  for (std::uint32_t slot = 1; slot <= 8; ++slot) {
    REQUIRE(arm::intx_gsi(slot));
    gsis.push_back(*arm::intx_gsi(slot));
  }
  CHECK_FALSE(arm::intx_gsi(0));
  CHECK_FALSE(arm::intx_gsi(9));
  std::ranges::sort(gsis);
  CHECK(std::ranges::adjacent_find(gsis) == gsis.end());
  CHECK(gsis.back() < arm::kPins);
  const auto routes = arm::fixed_routes();
  REQUIRE(routes.size() == arm::kPins);
  for (std::uint32_t i = 0; i < routes.size(); ++i) {
    CHECK(routes[i].gsi == i);
    CHECK(routes[i].type == KVM_IRQ_ROUTING_IRQCHIP);
    CHECK(routes[i].u.irqchip.pin == i);
  }
  // KVM_DEV_ARM_VGIC_GRP_NR_IRQS: 64 to 1024, in steps of 32.
  CHECK(arm::kInterrupts % 32 == 0);
  CHECK(arm::kInterrupts >= 64);
}

TEST_CASE("arm64: vCPU 16 begins the second cluster, as KVM numbers them") {
  CHECK(arm::affinity(0) == 0);
  CHECK(arm::affinity(15) == 0xf);
  CHECK(arm::affinity(16) == 0x100);
  CHECK(arm::affinity(63) == 0x30f);
}

TEST_CASE("arm64: dtc reads the device tree back as the golden source, without a warning") {
  if (!boot::samples::Workshop::has("dtc")) return;
  const auto tree = tree_of({.vcpus = 2,
                             .devices = 1,
                             .command_line = "console=ttyS0 root=/dev/nvme0n1",
                             .initrd_size = 0x12345},
                            512 * kMiB);
  CHECK(boot::samples::device_tree_source(tree) == kGolden);
}

TEST_CASE(
    "arm64: 64 vCPUs have 64 nodes and redistributors; without initrd there is no word of one") {
  const auto tree = tree_of({.vcpus = 64}, kGiB);
  CHECK(fdt_path_offset(tree.data(), "/cpus/cpu@30f") > 0);
  int size = 0;
  const auto* reg = static_cast<const fdt32_t*>(fdt_getprop(
      tree.data(), fdt_path_offset(tree.data(), "/interrupt-controller@8000000"), "reg", &size));
  REQUIRE(size == 32);
  CHECK(fdt32_to_cpu(reg[7]) == 64 * 0x2'0000);
  const int chosen = fdt_path_offset(tree.data(), "/chosen");
  CHECK(fdt_getprop(tree.data(), chosen, "linux,initrd-start", &size) == nullptr);
  CHECK(fdt_getprop(tree.data(), chosen, "rng-seed", &size) == nullptr);
}

TEST_CASE("arm64: a guest is given seeds for its random numbers and for KASLR") {
  boot::FdtDescription::Seeds seeds;
  seeds.kaslr = 0x1122334455667788;
  seeds.rng.fill(std::byte{0x5a});
  const auto tree = arm::guest_tree({.vcpus = 1}, layout_of(kGiB), seeds);
  REQUIRE(tree);
  const int chosen = fdt_path_offset(tree->data(), "/chosen");
  int size = 0;
  const void* kaslr = fdt_getprop(tree->data(), chosen, "kaslr-seed", &size);
  REQUIRE(size == 8);
  CHECK(fdt64_ld(static_cast<const fdt64_t*>(kaslr)) == seeds.kaslr);
  const void* rng = fdt_getprop(tree->data(), chosen, "rng-seed", &size);
  REQUIRE(size == 64);
  CHECK(std::memcmp(rng, seeds.rng.data(), 64) == 0);
}

TEST_CASE("arm64: a command line or an initrd that is too large is refused in one line") {
  const std::string line(2048, 'x');
  const auto long_line =
      arm::guest_tree({.vcpus = 1, .command_line = line}, layout_of(kGiB), std::nullopt);
  REQUIRE_FALSE(long_line);
  CHECK(long_line.error().status == ExitStatus::boot_image);
  CHECK(long_line.error().message.find("2047") != std::string::npos);
  const auto large =
      arm::guest_tree({.vcpus = 1, .initrd_size = 65 * kMiB}, layout_of(64 * kMiB), std::nullopt);
  REQUIRE_FALSE(large);
  CHECK(large.error().message.find("raise memory") != std::string::npos);
}
