// SPDK's target is killed and started again under a running micro guest: a server that has
// forgotten everything, and is not of this project.
#include <chrono>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/peers/spdk_target.h"
#include "vfio_user/transport.h"

namespace outboard::peers {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

// A machine with the guest nvme_forgets, which writes, reads and compares blocks of the controller
// on that socket.
class Machine final {
 public:
  Machine(const Folder& folder, const std::string& socket) : folder_(folder) {
    std::ofstream(folder / "m.toml")
        << "[machine]\nmemory = \"128M\"\n[kernel]\npath = \"" << OUTBOARD_GUESTS
        << "/nvme_forgets\"\n[console]\ntype = \"socket\"\npath = \"console\"\n"
        << "[[device]]\nname = \"disk\"\nsocket = \"" << socket << "\"\n"
        << "timeouts = { version = \"20s\", setup = \"10s\", access = \"10s\", dma = \"10s\", "
        << "reset = \"30s\" }\non_disconnect = \"reconnect\"\n"
        << "reconnect = { last_delay = \"100ms\", give_up = \"stop\" }\n";
    process_.emplace(std::vector<std::string>{OUTBOARD_PROGRAM, "run", folder / "m.toml",
                                              "--boot-report", folder / "report.json"},
                     folder / "machine.log");
    const auto deadline = Clock::now() + 60s;
    while (!console_ && process_->running() && Clock::now() < deadline) {
      auto socket_of_it = vfio_user::connect_unix(folder / "console", Clock::now() + 1s);
      if (socket_of_it) console_ = std::move(*socket_of_it);
      std::this_thread::sleep_for(5ms);
    }
    REQUIRE_MESSAGE(console_, process_->output());
    wait_for("ready\n", 0);
  }

  // Until the console has said that, at `from` or later; where it ends.
  std::size_t wait_for(const std::string& words, std::size_t from) {
    const auto deadline = Clock::now() + 60s;
    while (text_.find(words, from) == std::string::npos && process_->running() &&
           Clock::now() < deadline) {
      read_console();
      std::this_thread::sleep_for(1ms);
    }
    read_console();
    const std::size_t at = text_.find(words, from);
    const std::string seen = text_ + process_->output();
    REQUIRE_MESSAGE(at != std::string::npos, seen);
    return at + words.size();
  }
  // Ends the guest; what the boot report says of the connection.
  Json end() {
    (void)::send(console_.get(), "x", 1, MSG_NOSIGNAL);
    wait_for("PASSED\n", 0);
    CHECK(status() == 0);
    return Json::parse(std::ifstream(folder_ / "report.json"))["devices"][0]["link"];
  }
  int status() {
    const auto status = process_->wait(60s);
    REQUIRE_MESSAGE(status, process_->output());
    return WIFEXITED(*status) ? WEXITSTATUS(*status) : -1;
  }
  std::string output() const { return process_->output(); }
  std::size_t said() const { return text_.size(); }

 private:
  void read_console() {
    char bytes[4096];
    ssize_t got = 0;
    while ((got = ::recv(console_.get(), bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
      text_.append(bytes, static_cast<std::size_t>(got));
    }
  }

  const Folder& folder_;
  std::optional<Process> process_;
  vfio_user::UniqueFd console_;
  std::string text_;
};

}  // namespace

TEST_SUITE("SPDK under a guest" * doctest::skip(spdk_folder() == nullptr || !has_kvm())) {
  TEST_CASE(
      "nvmf target, killed and started again: it is reset and the guest's driver finds its "
      "blocks") {
    for (const SpdkMode mode : {SpdkMode::polling, SpdkMode::interrupt}) {
      CAPTURE(static_cast<int>(mode));
      constexpr int kDeaths = 3;
      SpdkTarget target(mode, SpdkTarget::Disk::file);
      Machine machine(target.folder(), target.socket());
      for (int death = 1; death <= kDeaths; ++death) {
        machine.wait_for("ready\n", machine.said());
        target.kill();
        target.start();
        machine.wait_for("recovered " + std::to_string(death) + "\n", 0);
      }
      const Json link = machine.end();
      MESSAGE(link.dump());
      CHECK(link["losses"] == kDeaths);
      CHECK(link["resets"] == kDeaths);
      CHECK(link["resumes"] == 0);
      CHECK(link["state"] == "ready");
      CHECK(target.process().running());
    }
  }

  TEST_CASE("nvmf target, killed, and another controller behind its socket: refused by its id") {
    SpdkTarget target(SpdkMode::polling);
    Machine machine(target.folder(), target.socket());
    target.kill();
    ::unlink(target.socket().c_str());
    Process other({OUTBOARD_NVME, "--socket", target.socket(), "--memory", "64M"},
                  target.folder() / "other.log");
    CHECK(machine.status() == 8);
    const std::string said = machine.output();
    CHECK_MESSAGE(said.find("its vendor id was 0x4e58 and is 0x4f42") != std::string::npos, said);
  }
}

}  // namespace outboard::peers
