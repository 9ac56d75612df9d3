// What each VMM is given.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include <doctest/doctest.h>

#include "tools/bench/contest.h"
#include "tools/bench/html_page.h"
#include "tools/bench/machine_file.h"
#include "tools/bench/private_folder.h"
#include "tools/bench/vmm_command.h"

using namespace outboard::bench;
namespace fs = std::filesystem;

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string all = " ";
  for (const std::string& word : words) all += word + " ";
  return all;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Workload workload() {
  Workload work;
  work.kernel = "/boot/vmlinuz";
  work.command_line = "console=ttyS0 quiet";
  work.disks = {{"outboard-nvme", "--file", "a.img", "--read-only"}};
  work.images = {"a.img"};
  return work;
}

}  // namespace

TEST_CASE("QEMU with vfio-user-pci gets the same server's socket, shared memory and no more") {
  const auto words = joined(
      qemu_command({"qemu", "11.1.3", true}, QemuMachine::q35, workload(), "/k", {"/run/d0"}));
  CHECK(has(words, " -nodefaults "));
  CHECK(has(words, " -display none "));
  CHECK(has(words, "memory-backend-memfd,id=ram,size=512M,share=on"));
  CHECK(has(words, " -kernel /k "));
  CHECK(has(words, R"("driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/d0"})"));
  CHECK_FALSE(has(words, "a.img"));
  CHECK_FALSE(has(words, "qboot"));
}

TEST_CASE("a QEMU without vfio-user-pci gets its own NVMe controller on the image, read-only") {
  const auto words =
      joined(qemu_command({"qemu", "7.2", false}, QemuMachine::microvm, workload(), "/k", {}));
  CHECK(has(words, " nvme,drive=disk0,serial=bench0 "));
  CHECK(has(words, R"("read-only":true)"));
  CHECK(has(words, R"("filename":"a.img")"));
  CHECK(has(words, "microvm,pcie=on"));
  CHECK_FALSE(has(words, "vfio-user"));
}

TEST_CASE("a version is taken out of what a program says of itself") {
  CHECK(version_in("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)") == "11.1.3");
  CHECK(version_in("outboard 0.1.0") == "0.1.0");
  CHECK(version_in("hello").empty());
}

TEST_CASE(
    "a QEMU whose modules are another build's is refused, not taken for one without vfio-user") {
  auto folder = PrivateFolder::create();
  REQUIRE(folder);
  const std::string program = folder->file("qemu");
  const auto qemu = [&](const std::string& devices) {
    std::ofstream(program)
        << "#!/bin/sh\ncase $1 in --version) echo 'QEMU emulator version 11.1.3';;\n"
        << "-device) echo '" << devices << "';; esac\n";
    fs::permissions(program, fs::perms::owner_all);
    return probe_qemu(program);
  };
  const auto broken = qemu("failed to initialize module: ui-opengl.so");
  REQUIRE_FALSE(broken);
  CHECK(has(broken.error().message, "lists no devices"));
  CHECK(has(broken.error().message, "ui-opengl.so"));
  const auto without = qemu("name \"nvme\", bus PCI");
  REQUIRE(without);
  CHECK_FALSE(without->vfio_user);
  const auto with = qemu("name \"vfio-user-pci\", bus PCI");
  REQUIRE(with);
  CHECK(with->vfio_user);
  CHECK(with->version == "11.1.3");
}

TEST_CASE("sizes are those of outboard's own files") {
  CHECK(size_of("512M") == 512U << 20);
  CHECK(size_of("4GiB") == std::uint64_t{4} << 30);
  CHECK(size_of("4096") == 4096U);
  for (const char* wrong : {"", "M", "-1M", "1.5G", "1X", "99999999999T"})
    CHECK_FALSE(size_of(wrong).has_value());
}

TEST_CASE(
    "a device with a command of its own is served by that command; the socket is this program's") {
  auto folder = PrivateFolder::create();
  REQUIRE(folder.has_value());
  const std::string path = folder->file("m.toml");
  REQUIRE(write_file(path, R"(
[machine]
memory = "1G"
vcpus = 2
page_size = "2M"
[kernel]
path = "vmlinuz"
cmdline = "quiet"
[console]
type = "file"
path = "c.log"
[[device]]
name = "root"
server = ["outboard-nvme", "--socket", "{socket}", "--file", "root.img"]
affinity = [1]
)")
              .has_value());
  const auto file = MachineFile::read(path);
  REQUIRE(file.has_value());
  const auto work = file->workload({}, "/bin/outboard-nvme");
  REQUIRE(work.has_value());
  CHECK(work->kernel == folder->file("vmlinuz"));
  CHECK(work->memory == std::uint64_t{1} << 30);
  CHECK(work->vcpus == 2);
  REQUIRE(work->disks.size() == 1);
  CHECK(joined(work->disks[0]) ==
        " /bin/outboard-nvme --file " + folder->file("root.img") + " --read-only ");
  CHECK(work->images[0] == folder->file("root.img"));

  const std::string rewritten = file->text(*work, {"/run/d0-1"});
  CHECK(has(rewritten, "/run/d0-1"));
  CHECK(has(rewritten, "page_size"));
  CHECK_FALSE(has(rewritten, "c.log"));
  CHECK_FALSE(has(rewritten, "outboard-nvme"));
  CHECK_FALSE(has(rewritten, "affinity"));
}

TEST_CASE("a device at a socket needs an image, and a foreign server has no clock") {
  auto folder = PrivateFolder::create();
  REQUIRE(folder.has_value());
  const std::string path = folder->file("m.toml");
  REQUIRE(write_file(path, "[[device]]\nname = \"root\"\nsocket = \"root.sock\"\n").has_value());
  auto file = MachineFile::read(path);
  REQUIRE(file.has_value());
  CHECK(has(file->workload({}, "n").error().message, "--disk"));
  CHECK(file->workload({"x.img"}, "n")->disks[0] ==
        std::vector<std::string>{"n", "--file", "x.img", "--read-only"});
  CHECK(file->workload({"memory"}, "n")->disks[0] ==
        std::vector<std::string>{"n", "--memory", "64M"});
  CHECK(file->workload({"x.img", "y.img"}, "n").error().status == ExitStatus::usage);
  REQUIRE(write_file(path, "[[device]]\nname = \"a\"\nserver = [\"nvmf_tgt\"]\n").has_value());
  file = MachineFile::read(path);
  REQUIRE(file.has_value());
  CHECK(has(file->workload({}, "n").error().message, "nvmf_tgt"));
}

TEST_CASE("a TOML file that is none is refused with its line") {
  auto folder = PrivateFolder::create();
  REQUIRE(folder.has_value());
  const std::string path = folder->file("m.toml");
  REQUIRE(write_file(path, "[kernel]\npath = \n").has_value());
  CHECK(has(MachineFile::read(path).error().message, ":2:"));
}

TEST_CASE("the page is one file: no script, nothing from elsewhere, and text is escaped") {
  Results results;
  results.command = "start";
  results.title = "a <title> & more";
  results.last_key = kFirstByte;
  results.ours.name = "outboard";
  results.ours.runs = {
      {{{"", "first_run", "first KVM_RUN", 8e6}, {"bench", "first_byte", "byte", 9e6}},
       Memory{1 << 20, 1 << 20, 0},
       {}}};
  Duel duel;
  duel.ours = results.ours;
  duel.theirs.name = "QEMU q35";
  duel.theirs.runs = {{{{"bench", "first_byte", "byte", 90e6}}, {}, {}}};
  duel.key = kFirstByte;
  results.duels.push_back(duel);
  const std::string page = html_page(results);
  CHECK(has(page, "a &lt;title&gt; &amp; more"));
  CHECK_FALSE(has(page, "http"));
  CHECK_FALSE(has(page, "<script"));
  CHECK_FALSE(has(page, "<link"));
  CHECK(has(page, "prefers-color-scheme: dark"));
  CHECK(has(page, "10.0×"));
  CHECK(has(page, "8.00 ms"));
}

TEST_CASE("a QEMU without vfio-user-pci and without an image gets a null disk of the same size") {
  Workload work = workload();
  work.disks = {{"outboard-nvme", "--memory", "64M"}};
  work.images = {""};
  const auto words = joined(qemu_command({"qemu", "7.2", false}, QemuMachine::q35, work, "/k", {}));
  CHECK(has(words, "driver=null-co,node-name=disk0,size=67108864"));
}
