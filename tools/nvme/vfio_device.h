// The controller as a vfio-user device: regions, interrupts and guest memory on one side, the
// controller on the other. Everything runs on the thread that drives the server.
#pragma once

#include <memory>
#include <vector>

#include "tools/nvme/config_space.h"
#include "tools/nvme/controller.h"
#include "tools/nvme/saved_windows.h"
#include "tools/nvme/state_file.h"
#include "vfio_user/server.h"

namespace outboard::nvme {

// How the guest's doorbells arrive. page: a page of memory that is looked at; trap: messages;
// shadow: a buffer in guest memory, and an eventfd when this program sleeps; messages for the admin
// queue, and for guests that set no buffer.
enum class DoorbellMode { page, trap, shadow };

class VfioDevice final : public vfio_user::DeviceModel, private GuestDma, private Interrupts {
 public:
  // With a `file`, which outlives this object, the device leaves what a successor needs, and takes
  // over what a predecessor left (file->left_over(), checked).
  VfioDevice(ControllerOptions options, std::vector<Namespace> namespaces,
             std::unique_ptr<Doorbells> doorbells, DoorbellMode mode, StateFile* file = nullptr);

  // Once, before the server processes anything; the server outlives no call of this object.
  void serve_through(vfio_user::Server* server) { server_ = server; }

  // The program ends while a client may be attached: what is in the state file stays for a
  // successor. Without one nothing changes.
  void leave() { leaving_ = saved_ != nullptr; }
  // A predecessor's state waits for its client, guest memory and bus mastering.
  bool taking_over() const { return taking_over_; }

  Controller& controller() { return controller_; }
  // The doorbells must be looked at without being told.
  bool must_poll() const {
    return mode_ == DoorbellMode::page && controller_.active() && !controller_.suspended();
  }
  bool client_left() const { return client_left_; }
  // Doorbells arrive by memory, so a short look before sleeping saves the guest a ring.
  bool worth_spinning() const { return must_poll() || controller_.shadowed(); }
  // Readable when a guest has rung; -1 in the modes that have none.
  int wake_fd() const { return wake_.get(); }
  void take_wake();

  const vfio_user::DeviceShape& shape() const override { return shape_; }
  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override;
  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override;
  void reset() override;
  std::optional<vfio_user::ResumeCapability> resume() override;
  void connected() override;
  void disconnected() override;
  void dma_mapped(const vfio_user::ServerWindow& window) override;
  void dma_unmapping(const vfio_user::ServerWindow& window) override;
  void irqs_armed(std::uint32_t index) override;
  std::vector<vfio_user::ServerIoFd> io_fds(std::uint32_t region) override;
  void irq_unmasked(std::uint32_t index, std::uint32_t start, std::uint32_t count) override;

 private:
  std::span<std::byte> translate(u64 address, u64 size, Access access) override;
  bool read(u64 address, std::span<std::byte> into) override;
  bool write(u64 address, std::span<const std::byte> from) override;
  bool message_signalled() const override;
  void raise(u16 vector) override;
  void set_pin(bool asserted) override;

  void signal_pin();
  void reset_function();
  void forget_predecessor();
  void try_to_resume();

  DoorbellMode mode_;
  vfio_user::UniqueFd wake_;
  std::unique_ptr<Doorbells> doorbells_;
  StateFile* file_;
  SavedState* saved_;                     // in the file; null without one
  std::unique_ptr<ControllerState> own_;  // where there is no file
  SavedWindows windows_;
  Controller controller_;
  ConfigSpace config_;
  vfio_user::DeviceShape shape_;
  vfio_user::Server* server_ = nullptr;
  std::array<std::byte, kMsixBarSize> msix_{};  // the table as written; the client emulates it
  std::vector<bool> pending_;  // vectors raised while the client had no eventfd for them
  bool pin_ = false;           // the level
  bool pin_told_ = false;      // the client was told and has not unmasked since
  bool client_left_ = false;
  bool client_resumes_ = false;  // it has asked for the key "resume"
  bool taking_over_ = false;
  bool leaving_ = false;
  std::vector<bool> owed_;  // vectors whose last message the predecessor may have failed to send
};

}  // namespace outboard::nvme
