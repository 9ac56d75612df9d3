#include "tools/bench/vmm_command.h"

#include <fmt/core.h>

namespace outboard::bench {
namespace {

std::string mebibytes(const Workload& workload) {
  return fmt::format("{}M", workload.memory >> 20);
}

// A string of QEMU's JSON options.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

}  // namespace

std::string to_string(QemuMachine machine) {
  return machine == QemuMachine::q35 ? "q35" : "microvm";
}

std::vector<std::string> qemu_command(const Qemu& qemu, QemuMachine machine,
                                      const Workload& workload, const std::string& kernel,
                                      const std::vector<std::string>& sockets) {
  const std::string type = machine == QemuMachine::q35
                               ? "q35,memory-backend=ram"
                               : "microvm,pcie=on,rtc=on,x-option-roms=off,memory-backend=ram";
  std::vector<std::string> words = {
      qemu.path,
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-no-reboot",
      "-accel",
      "kvm",
      "-cpu",
      "host",
      "-smp",
      std::to_string(workload.vcpus),
      "-m",
      mebibytes(workload),
      "-object",
      fmt::format("memory-backend-memfd,id=ram,size={},share=on", mebibytes(workload)),
      "-machine",
      type,
      "-serial",
      "stdio",
      "-kernel",
      kernel,
      "-append",
      workload.command_line};
  // microvm's other firmware is several times slower.
  if (machine == QemuMachine::microvm) words.insert(words.end(), {"-bios", "qboot.rom"});
  if (!workload.initrd.empty()) words.insert(words.end(), {"-initrd", workload.initrd});
  // How the payload of `start` ends; a Linux guest does not know that it is there.
  words.insert(words.end(), {"-device", "isa-debug-exit,iobase=0x501"});
  for (std::size_t i = 0; i < workload.disks.size(); ++i) {
    if (qemu.vfio_user) {
      words.emplace_back("-device");
      words.push_back(
          fmt::format(R"({{"driver":"vfio-user-pci","socket":{{"type":"unix","path":{}}}}})",
                      quoted(sockets.at(i))));
      continue;
    }
    const std::string image = i < workload.images.size() ? workload.images[i] : std::string();
    words.emplace_back("-blockdev");
    words.push_back(
        image.empty()
            ? fmt::format("driver=null-co,node-name=disk{},size=67108864,read-zeroes=on", i)
            : fmt::format(R"({{"driver":"raw","node-name":"disk{}","read-only":true,)"
                          R"("file":{{"driver":"file","filename":{}}}}})",
                          i, quoted(image)));
    words.emplace_back("-device");
    words.push_back(fmt::format("nvme,drive=disk{},serial=bench{}", i, i));
  }
  return words;
}

std::vector<std::string> cloud_hypervisor_command(const std::string& path, const Workload& workload,
                                                  const std::vector<std::string>& sockets) {
  std::vector<std::string> words = {path,
                                    "--kernel",
                                    workload.vmlinux.empty() ? workload.kernel : workload.vmlinux,
                                    "--cmdline",
                                    workload.command_line,
                                    "--memory",
                                    fmt::format("size={},shared=on", mebibytes(workload)),
                                    "--cpus",
                                    fmt::format("boot={}", workload.vcpus),
                                    "--serial",
                                    "tty",
                                    "--console",
                                    "off"};
  if (!workload.initrd.empty()) words.insert(words.end(), {"--initramfs", workload.initrd});
  for (const std::string& socket : sockets) {
    words.emplace_back("--user-device");
    words.push_back("socket=" + socket);
  }
  return words;
}

std::string version_in(const std::string& line) {
  const std::size_t at = line.find_first_of("0123456789");
  if (at == std::string::npos) return {};
  return line.substr(at, line.find_first_not_of("0123456789.", at) - at);
}

}  // namespace outboard::bench
