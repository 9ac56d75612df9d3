// QEMU's vfio-user client against outboard-nvme: OUTBOARD_PEER_QEMU names a qemu-system-x86_64 that
// has vfio-user-pci. No Linux and no KVM: QEMU's own firmware drives the disk, for a boot sector.
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <sys/wait.h>

#include "tests/peers/process.h"

namespace outboard::peers {
namespace {

using namespace std::chrono_literals;

const char* const kQemu = peer("OUTBOARD_PEER_QEMU");

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// 4 MiB: the boot sector, then 8 blocks of a pattern.
std::string make_disk() {
  std::string disk(4 << 20, '\0');
  const std::string sector = read_file(OUTBOARD_BOOT_SECTOR);
  REQUIRE(sector.size() == 512);
  disk.replace(0, 512, sector);
  for (std::size_t i = 512; i < std::size_t{9 * 512}; ++i) {
    disk[i] = static_cast<char>(i * 31 >> 3);
  }
  return disk;
}

}  // namespace

TEST_SUITE("QEMU" * doctest::skip(kQemu == nullptr)) {
  TEST_CASE("vfio-user-pci boots from outboard-nvme, writes to it and reads it back") {
    struct Row {
      std::string doorbells;
      bool state;
    };
    for (const auto& [doorbells, state] : std::vector<Row>{
             {"page", false}, {"trap", false}, {"page", true}, {"trap", true}, {"shadow", true}}) {
      CAPTURE(doorbells);
      CAPTURE(state);
      const Folder folder;
      const std::string disk = make_disk();
      std::ofstream(folder / "disk", std::ios::binary) << disk;
      std::vector<std::string> serve = {OUTBOARD_NVME,   "--socket",    folder / "s", "--file",
                                        folder / "disk", "--doorbells", doorbells};
      if (state) serve.insert(serve.end(), {"--state", folder / "state"});
      Process server(serve, folder / "server.log");
      REQUIRE_MESSAGE(wait_for_socket(server, folder / "s"), server.output());
      const std::string device =
          R"({"driver":"vfio-user-pci","socket":{"type":"unix","path":")" + folder / "s" + "\"}}";
      Process qemu({kQemu,
                    "-accel",
                    "tcg",
                    "-cpu",
                    "max",
                    "-object",
                    "memory-backend-memfd,id=m,size=128M,share=on",
                    "-machine",
                    "q35,memory-backend=m",
                    "-m",
                    "128",
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-serial",
                    "file:" + folder / "serial",
                    "-no-reboot",
                    "-device",
                    "isa-debug-exit,iobase=0x501,iosize=2",
                    "-device",
                    device},
                   folder / "qemu.log");
      const auto status = qemu.wait(240s);
      const std::string serial = read_file(folder / "serial");
      const std::string said = serial + qemu.output();
      REQUIRE_MESSAGE(status, said);
      CHECK_MESSAGE((WIFEXITED(*status) && WEXITSTATUS(*status) == 1), said);
      CHECK(serial.find("RWB PASSED") != std::string::npos);
      // Of keys in VERSION that it does not know, as "resume", it warns; and it has no more room
      // for the reply than its own request took.
      CHECK_MESSAGE(qemu.output().find("capabilities") == std::string::npos, qemu.output());
      CHECK_MESSAGE(server.running(), server.output());
      const std::string after = read_file(folder / "disk");
      CHECK(after.substr(0, 9 * 512) == disk.substr(0, 9 * 512));
      CHECK(after.substr(16 * 512, 8 * 512) == disk.substr(512, 8 * 512));
    }
  }
}

}  // namespace outboard::peers
