// SPDK's nvmf target with one controller, as start-nvmf makes it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tests/peers/process.h"
#include "vfio_user/client.h"

namespace outboard::peers {

// Where start-nvmf is; null: nobody has said.
const char* spdk_folder();

enum class SpdkMode {
  polling,    // with a mappable BAR0
  interrupt,  // without
};

// Its exit status is not judged: at SIGTERM it may crash on its own.
class SpdkTarget final {
 public:
  // The namespace: SPDK's own 64 MiB of memory, or a file, which outlives it. In interrupt mode it
  // is a file always.
  enum class Disk { memory, file };

  explicit SpdkTarget(SpdkMode mode, Disk disk = Disk::memory);
  [[nodiscard]] std::unique_ptr<vfio_user::Client> connect() const;
  // As a crash; start() is another process, with nothing but the file.
  void kill();
  void start();

  [[nodiscard]] const Folder& folder() const { return folder_; }
  [[nodiscard]] std::string socket() const { return folder_ / "cntrl"; }
  Process& process() { return *process_; }

 private:
  SpdkMode mode_;
  Disk disk_;
  Folder folder_;
  std::optional<Process> process_;
};

}  // namespace outboard::peers
