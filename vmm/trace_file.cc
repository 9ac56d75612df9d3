#include "vmm/trace_file.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <fmt/format.h>

namespace outboard::vmm {
namespace {

using vfio_user::ObservedMessage;

constexpr std::uint32_t kMachine = 1;      // the process of the vCPUs and of the machine's marks
constexpr std::uint32_t kFirstDevice = 2;  // those of the devices, in their order
constexpr std::size_t kPiece = 64 * 1024;

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (code < 0x20) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::uint64_t nanoseconds(std::chrono::steady_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  return static_cast<std::uint64_t>(since.count());
}

std::string_view result_of(ObservedMessage::End end) {
  switch (end) {
    case ObservedMessage::End::answered:
      return "answered";
    case ObservedMessage::End::refused:
      return "refused";
    case ObservedMessage::End::posted:
      return "posted";
    case ObservedMessage::End::timed_out:
      return "timed out";
    case ObservedMessage::End::lost:
      break;
  }
  return "connection lost";
}

// "memory write", "port read", "interrupted".
std::string name_of(const ExitEvent& event) {
  const bool access = event.kind == ExitKind::port || event.kind == ExitKind::memory;
  return fmt::format("{}{}", key_of(event.kind), !access ? "" : event.write ? " write" : " read");
}

// The fields of `args` that say what the message is about, each after a comma.
std::string place_of(const ObservedMessage& message) {
  using wire = vfio_user::wire::Command;
  switch (message.command) {
    case wire::region_read:
    case wire::region_write:
      return fmt::format(R"(,"region":{},"offset":"{:#x}","size":{})", message.index,
                         message.address, message.size);
    case wire::dma_map:
    case wire::dma_unmap:
    case wire::dma_read:
    case wire::dma_write:
      return fmt::format(R"(,"address":"{:#x}","size":{})", message.address, message.size);
    case wire::device_set_irqs:
      return fmt::format(R"(,"interrupt":{},"first_vector":{},"vectors":{})", message.index,
                         message.address, message.size);
    case wire::device_get_irq_info:
      return fmt::format(R"(,"interrupt":{})", message.index);
    case wire::device_get_region_info:
    case wire::device_get_region_io_fds:
      return fmt::format(R"(,"region":{})", message.index);
    default:
      return {};
  }
}

class Writer {
 public:
  Writer(const Marks& marks, const std::function<void(std::string_view)>& sink)
      : start_(marks.at(Mark::process_start).value_or(0)), sink_(sink) {}

  std::uint64_t start() const { return start_; }

  // One event; `rest` are its further fields, each after a comma.
  void event(std::string_view name, char phase, std::uint32_t process, std::uint32_t track,
             std::string_view rest) {
    fmt::format_to(std::back_inserter(text_), R"({}{{"name":{},"ph":"{}","pid":{},"tid":{}{}}})",
                   first_ ? "\n" : ",\n", quoted(name), phase, process, track, rest);
    first_ = false;
    if (text_.size() >= kPiece) flush();
  }
  void name(std::string_view what, std::uint32_t process, std::uint32_t track,
            std::string_view name) {
    event(what, 'M', process, track, fmt::format(R"(,"args":{{"name":{}}})", quoted(name)));
  }
  // The tracks are shown in the order of their numbers.
  void order(std::string_view what, std::uint32_t process, std::uint32_t track,
             std::uint32_t place) {
    event(what, 'M', process, track, fmt::format(R"(,"args":{{"sort_index":{}}})", place));
  }
  std::string time(std::uint64_t at) const { return microseconds(at > start_ ? at - start_ : 0); }
  static std::string microseconds(std::uint64_t nanoseconds) {
    return fmt::format("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000);
  }
  std::string span(std::string_view category, std::uint64_t began, std::uint64_t ended) const {
    return fmt::format(R"(,"cat":"{}","ts":{},"dur":{})", category, time(began),
                       microseconds(ended > began ? ended - began : 0));
  }
  void text(std::string_view text) { text_ += text; }
  void flush() {
    sink_(text_);
    text_.clear();
  }

 private:
  const std::uint64_t start_;
  const std::function<void(std::string_view)>& sink_;
  std::string text_;
  bool first_ = true;
};

void write_exits(Writer& out, const Trace& trace, std::uint32_t vcpus) {
  out.name("process_name", kMachine, 0, "outboard");
  out.order("process_sort_index", kMachine, 0, 0);
  for (std::uint32_t i = 0; i < vcpus; ++i) {
    out.name("thread_name", kMachine, i + 1, fmt::format("vcpu{}", i));
    out.order("thread_sort_index", kMachine, i + 1, i);
  }
  std::vector<ExitEvent> events(trace.exits().begin(), trace.exits().end());
  std::ranges::sort(events, {}, &ExitEvent::began);
  for (const ExitEvent& event : events) {
    std::string rest = out.span("exit", event.began, event.ended);
    if (event.size != 0) {
      rest += fmt::format(R"(,"args":{{"address":"{:#x}","size":{}}})", event.address, event.size);
    }
    out.event(name_of(event), 'X', kMachine, event.vcpu + 1, rest);
  }
}

void write_message(Writer& out, const ObservedMessage& message, std::uint32_t process,
                   std::uint32_t track) {
  std::string rest = out.span("message", nanoseconds(message.sent), nanoseconds(message.ended));
  rest += fmt::format(
      R"(,"args":{{"id":{},"from":"{}","result":"{}","posted":{},"bytes_out":{},"bytes_in":{}{}}})",
      message.id, message.from_server ? "server" : "client", result_of(message.end),
      message.end == ObservedMessage::End::posted, message.bytes_out, message.bytes_in,
      place_of(message));
  out.event(vfio_user::wire::name_of(message.command), 'X', process, track, rest);
}

void write_device(Writer& out, const Trace& trace, std::uint32_t index) {
  const std::uint32_t process = kFirstDevice + index;
  out.name("process_name", process, 0, "device " + trace.device(index));
  out.order("process_sort_index", process, 0, index + 1);
  std::vector<const ObservedMessage*> messages;
  for (const MessageEvent& event : trace.messages()) {
    if (event.device == index) messages.push_back(&event.message);
  }
  std::ranges::stable_sort(messages, {}, [](const auto* message) { return message->sent; });
  // When the last message of each track was over. The first track is there in any case.
  std::vector<std::chrono::steady_clock::time_point> tracks(1);
  for (const ObservedMessage* message : messages) {
    const auto free =
        std::ranges::find_if(tracks, [&](const auto& over) { return over <= message->sent; });
    const auto track = static_cast<std::uint32_t>(free - tracks.begin());
    if (free == tracks.end()) tracks.emplace_back();
    tracks[track] = message->ended;
    write_message(out, *message, process, track + 1);
  }
  for (std::uint32_t i = 0; i < tracks.size(); ++i) {
    out.name("thread_name", process, i + 1,
             i == 0 ? "messages" : fmt::format("messages in flight beside ({})", i));
    out.order("thread_sort_index", process, i + 1, i);
  }
}

void write_marks(Writer& out, const Trace& trace, const Marks& marks) {
  for (const Stamp& stamp : marks.list()) {
    std::uint32_t process = kMachine;
    for (std::uint32_t i = 0; i < trace.devices(); ++i) {
      if (trace.device(i) == stamp.device) process = kFirstDevice + i;
    }
    out.event(stamp.name, 'i', process, process == kMachine ? 0 : 1,
              fmt::format(R"(,"cat":"mark","ts":{},"s":"p","args":{{"key":"{}"}})",
                          out.time(stamp.at), stamp.key));
  }
}

}  // namespace

void write_trace(const Trace& trace, const Marks& marks, std::uint32_t vcpus,
                 const std::function<void(std::string_view)>& sink) {
  Writer out(marks, sink);
  out.text(fmt::format(
      R"({{"displayTimeUnit":"ns","otherData":{{"program":"outboard {}","start_monotonic_ns":{},)"
      R"("dropped_events":{}}},"traceEvents":[)",
      OUTBOARD_VERSION, out.start(), trace.dropped()));
  write_exits(out, trace, vcpus);
  for (std::uint32_t i = 0; i < trace.devices(); ++i) write_device(out, trace, i);
  write_marks(out, trace, marks);
  out.text("\n]}\n");
  out.flush();
}

}  // namespace outboard::vmm
