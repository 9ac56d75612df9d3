// A server whose every answer is the input's choice: right, wrong in one field, of another length,
// an error, late, or no answer at all. Zeros are right answers.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "tests/fuzz/files.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/memory_transport.h"
#include "vfio_user/wire.h"

namespace outboard::fuzz {

class FuzzedServer final : public MemoryTransport {
 public:
  // `config`: what the configuration region holds. `input` outlives it.
  FuzzedServer(Input& input, std::span<const std::byte> config) : input_(input), config_(config) {
    if (input_.one_in(8)) set_at_once(1 + input_.below(64));
  }

 private:
  using Bytes = std::vector<std::byte>;
  using Fds = std::vector<vfio_user::UniqueFd>;
  using Header = vfio_user::wire::Header;

  void sent(std::span<const std::byte> bytes, std::size_t fds) override;
  void answer(const Header& request, std::span<const std::byte> payload);
  // The payload of the right reply, with the descriptors that belong to it.
  Bytes right(const Header& request, std::span<const std::byte> payload, Fds& fds);
  Bytes version();
  Bytes region_info(std::uint32_t index, std::uint32_t room, Fds& fds);
  Bytes region_io_fds(std::uint32_t index, std::uint32_t room, Fds& fds);
  Bytes irq_info(std::uint32_t index);
  Bytes region_read(std::span<const std::byte> payload);
  void request_dma();
  void reply(Header header, std::span<const std::byte> payload, Fds fds = {});
  void add_fds(Fds& fds);

  Input& input_;
  const std::span<const std::byte> config_;
  std::size_t answered_ = 0;
};

}  // namespace outboard::fuzz
