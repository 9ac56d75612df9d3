#include "tests/peers/spdk_target.h"

#include <fstream>

#include <doctest/doctest.h>
#include <unistd.h>

namespace outboard::peers {

using namespace std::chrono_literals;
using vfio_user::Client;

const char* spdk_folder() {
  static const char* const folder = peer("OUTBOARD_PEER_SPDK");
  return folder;
}

SpdkTarget::SpdkTarget(SpdkMode mode, Disk disk)
    : mode_(mode), disk_(mode == SpdkMode::interrupt ? Disk::file : disk) {
  const std::string file = folder_ / "ns";
  std::ofstream(file).put('\0');
  REQUIRE(::truncate(file.c_str(), 64 << 20) == 0);
  start();
}

void SpdkTarget::start() {
  std::vector<std::string> command = {std::string(spdk_folder()) + "/start-nvmf", folder_.path()};
  std::vector<std::string> environment;
  if (disk_ == Disk::file) environment.push_back("NS_FILE=" + (folder_ / "ns"));
  if (mode_ == SpdkMode::interrupt) {
    environment.emplace_back("TRANSPORT=\"disable_mappable_bar0\":true");
    command.emplace_back("--interrupt-mode");
  }
  ::unlink(socket().c_str());
  process_.emplace(command, folder_ / "log", environment);
  REQUIRE_MESSAGE(wait_for_socket(*process_, socket()), process_->output());
}

void SpdkTarget::kill() {
  process_->kill();
  REQUIRE_FALSE(process_->running());
}

std::unique_ptr<Client> SpdkTarget::connect() const {
  vfio_user::ClientOptions options;
  options.timeouts.version = 20s;
  auto client = Client::connect(socket(), std::move(options));
  REQUIRE_MESSAGE(client, (client ? "" : client.error().message));
  return std::move(*client);
}

}  // namespace outboard::peers
