// CONFORMANCE E and F: interrupts and DMA windows.
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;

// A write to an eventfd that is full would wait.
void signal_fd(const UniqueFd& fd, std::uint64_t count = 1) {
  ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  (void)!::write(fd.get(), &count, sizeof count);
}

// Every vector: used, masked, and those that nobody handles.
void signal_vectors(Stage& stage, std::uint64_t count = 1) {
  for (const auto& [place, fd] : stage.eventfds) {
    if (place.first == wire::kIrqMsix) signal_fd(fd, count);
  }
}

Tell signal_index(std::uint32_t index) {
  return at_read_pass([index](Stage& stage) {
    const auto found = stage.eventfds.find({index, 0});
    if (found == stage.eventfds.end()) {
      stage.failure = "the machine gave no eventfd for it";
    } else {
      signal_fd(found->second);
    }
  });
}

// The machine takes its windows back when attaching fails: at a reply that it cannot do without.
Tell at_unmap(std::function<void(Stage&, Event&)> answer) {
  return [answer = std::move(answer)](Stage& stage, Event& event) {
    if (is_reply_to(event, Command::device_get_irq_info)) {
      reply(stage, event, {}, {}, wire::kError, EIO);
      return Told::handled;
    }
    if (event.from != From::client || !is_command(event, Command::dma_unmap)) {
      return Told::not_yet;
    }
    answer(stage, event);
    return Told::done;
  };
}

}  // namespace

std::vector<Lie> lies_in_interrupts() {
  std::vector<Lie> out;
  for (const std::uint32_t count : {2049U, 0xffffffffU}) {
    out.push_back({"C64", std::to_string(count) + " vectors", When::attaching, Outcome::dropped,
                   [count](Stage& stage, Event& event) {
                     auto info = event.message.as<wire::IrqInfo>();
                     if (!is_reply_to(event, Command::device_get_irq_info) ||
                         info.index != wire::kIrqMsix) {
                       return Told::not_yet;
                     }
                     info.count = count;
                     reply(stage, event, bytes_of(info));
                     return Told::done;
                   }});
  }
  for (const int limit : {1, 3, 8}) {
    out.push_back({"C65", "descriptors in pieces of " + std::to_string(limit), When::attaching,
                   Outcome::goes_on, at_capabilities([limit](nlohmann::json& json) {
                     json["max_msg_fds"] = limit;
                   })});
  }
  Lie lie{"C66", "it refuses the vectors", When::attaching, Outcome::goes_on,
          [](Stage& stage, Event& event) {
            if (event.from != From::client || !is_command(event, Command::device_set_irqs) ||
                event.message.as<wire::SetIrqs>().index != wire::kIrqMsix) {
              return Told::not_yet;
            }
            reply(stage, event, {}, {}, wire::kError, ENOSPC);
            return Told::done;
          }};
  lie.heal = true;
  out.push_back(std::move(lie));
  out.push_back({"C68", "eventfds of before", When::attaching, Outcome::goes_on,
                 at_read_pass([](Stage& stage) {
                   for (int i = 0; i < 100; ++i) {
                     for (const UniqueFd& fd : stage.old_eventfds) signal_fd(fd);
                   }
                 })});
  out.push_back({"C69", "vectors without a reason, masked ones among them", When::running,
                 Outcome::goes_on, at_read_pass([](Stage& stage) { signal_vectors(stage); })});
  out.push_back({"C70", "a storm of interrupts", When::running, Outcome::goes_on,
                 at_read_pass([](Stage& stage) {
                   for (int i = 0; i < 20000; ++i) signal_vectors(stage);
                 })});
  out.push_back({"C71", "eventfds counted up to their end", When::running, Outcome::goes_on,
                 at_read_pass([](Stage& stage) {
                   signal_vectors(stage, ~std::uint64_t{0} - 1);
                   signal_vectors(stage, ~std::uint64_t{0} - 1);
                 })});
  out.push_back({"C73", "an unrecoverable error", When::running, Outcome::goes_on,
                 signal_index(wire::kIrqErr)});
  out.push_back({"C73", "it asks for its removal", When::running, Outcome::goes_on,
                 signal_index(wire::kIrqReq)});
  out.push_back({"C74", "it dies with its vectors armed", When::running, Outcome::goes_on,
                 [](Stage& stage, Event& event) {
                   if (!is_reply_to(event, Command::region_read)) return Told::not_yet;
                   signal_vectors(stage);
                   stage.server.kill();
                   return Told::ended;
                 }});
  return out;
}

std::vector<Lie> lies_about_windows() {
  std::vector<Lie> out = {
      {"C77", "it takes no windows", When::attaching, Outcome::dropped,
       at_capabilities([](nlohmann::json& json) { json["max_dma_maps"] = 0; })},
      {"C81", "it makes the guest's memory smaller, and larger", When::attaching, Outcome::goes_on,
       at_command(Command::dma_map,
                  [](Stage& stage, Event& event) {
                    for (const UniqueFd& fd : event.message.fds) {
                      if (::ftruncate(fd.get(), 0) == 0 || ::ftruncate(fd.get(), 1LL << 40) == 0) {
                        stage.failure = "the size of the guest's memory can be changed";
                      }
                      if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE) == 0) {
                        stage.failure = "the guest's memory can be sealed against writes";
                      }
                    }
                    stage.tap.pass(event);
                  })},
  };
  for (const int error : {EINVAL, EEXIST, ENOSPC, ENOMEM}) {
    out.push_back({"C78", "errno " + std::to_string(error) + " to a window", When::attaching,
                   Outcome::dropped,
                   at_reply(Command::dma_map, [error](Stage& stage, Event& event) {
                     reply(stage, event, {}, {}, wire::kError, static_cast<std::uint32_t>(error));
                   })});
  }
  const auto unmap = [&](const char* what, std::function<void(Stage&, Event&)> answer) {
    out.push_back({"C79", what, When::attaching, Outcome::dropped, at_unmap(std::move(answer))});
  };
  unmap("a window taken back by a header",
        [](Stage& stage, Event& event) { reply(stage, event, {}); });
  unmap("another window taken back", [](Stage& stage, Event& event) {
    auto other = event.message.as<wire::DmaUnmap>();
    other.address += 0x1000;
    reply(stage, event, bytes_of(other));
  });
  unmap("a window that it does not know",
        [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, ENOENT); });
  unmap("a window that is never given back", [](Stage&, Event&) {});
  return out;
}

}  // namespace outboard::chaos
