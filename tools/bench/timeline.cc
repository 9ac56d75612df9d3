#include "tools/bench/timeline.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/core.h>

#include "tools/bench/text_table.h"
#include "tools/bench/units.h"

namespace outboard::bench {
namespace {

constexpr double kWidth = 960;

// 1, 2 or 5 times a power of ten, so that `span` has four to eight of them.
double tick_step(double span) {
  const double power = std::pow(10, std::floor(std::log10(span / 4)));
  for (const double factor : {5.0, 2.0})
    if (span / (power * factor) >= 4) return power * factor;
  return power;
}

std::string svg_open(double height, const std::string& title) {
  return fmt::format(R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img"><title>{}</title>)", kWidth,
                     height, escape_html(title)) +
         "\n";
}

std::string text_at(double x, double y, const char* style, const std::string& text) {
  return fmt::format(R"(<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>)", x, y, style,
                     escape_html(text)) +
         "\n";
}

std::string box(double x, double y, double width, double height, const std::string& style,
                const std::string& title) {
  return fmt::format(
             R"(<rect x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}" rx="2" class="{}">)"
             R"(<title>{}</title></rect>)",
             x, y, width, height, style, escape_html(title)) +
         "\n";
}

// "1.5 s", without the zeros that a measured figure would have.
std::string tick_text(double nanoseconds) {
  if (nanoseconds <= 0) return "0";
  if (nanoseconds < 0.9995e6) return fmt::format("{:.3g} µs", nanoseconds / 1e3);
  if (nanoseconds < 0.9995e9) return fmt::format("{:.3g} ms", nanoseconds / 1e6);
  return fmt::format("{:.3g} s", nanoseconds / 1e9);
}

struct Scale {
  double left, right, span;  // `span` nanoseconds lie between x = left and x = right
  [[nodiscard]] double x(double at) const { return left + (right - left) * at / span; }

  // Lines and labels; labels at the bottom.
  [[nodiscard]] std::string grid(double top, double bottom) const {
    std::string out;
    const double step = tick_step(span);
    for (double at = 0; at <= span * 1.0001; at += step) {
      out +=
          fmt::format(R"(<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" class="grid"/>)",
                      x(at), top, bottom) +
          "\n";
      out += text_at(x(at), bottom + 16, "tick", tick_text(at));
    }
    return out;
  }
};

struct Phase {
  std::string name, style;
  double begin = 0, end = 0;
};

// A boundary of phases: the mark that ends it.
struct Boundary {
  std::string_view key;
  const char *name, *style;
};

constexpr std::array kStartPhases = {
    Boundary{"configuration_read", "program and configuration", "p1"},
    Boundary{"kvm_ready", "KVM", "p2"},
    Boundary{"first_run", "memory, payload, device", "p3"},
    Boundary{"first_byte", "guest to its first byte", "p4"},
};
constexpr std::array kBootPhases = {
    Boundary{kServerConnected, "VMM until it has its device", "p1"},
    Boundary{kFirstRun, "rest of the VMM's start", "p5"},
    Boundary{kServerEnabled, "guest kernel", "p2"},
    Boundary{kServerDoorbell, "NVMe driver", "p3"},
    Boundary{kServerRead, "first read", "p4"},
    Boundary{kConsoleLine, "to the console line", "p4"},
};
// Of a VMM that does not tell when its guest began.
constexpr const char* kNotSeparable = "rest of the VMM's start, firmware, guest kernel";

template <std::size_t n>
std::vector<Phase> phases_by(const Run& run, const std::array<Boundary, n>& boundaries) {
  std::vector<Phase> phases;
  double begin = 0;
  for (const Boundary& boundary : boundaries) {
    const auto end = run.at(boundary.key);
    if (!end || *end < begin) continue;
    phases.push_back({boundary.name, boundary.style, begin, *end});
    begin = *end;
  }
  // What cannot be seen from outside has no name of its own.
  if (phases.size() == 1 && phases.front().begin == 0 && phases.front().style != "p1")
    phases.front() = {"whole start, not seen into", "p0", 0, phases.front().end};
  return phases;
}

std::vector<Phase> phases_of(const Run& run, const std::string& command) {
  if (command == "start") return phases_by(run, kStartPhases);
  auto phases = phases_by(run, kBootPhases);
  if (!run.at(kFirstRun)) {
    for (Phase& phase : phases) {
      if (phase.name != "guest kernel") continue;
      phase.name = kNotSeparable;
      phase.style = "p0";
    }
  }
  return phases;
}

// What colour a mark has: whose it is.
const char* style_of(const Mark& mark) {
  if (mark.device == "server") return "p3";
  if (mark.device == "bench") return "p0";
  return mark.device.empty() ? "p1" : "p2";
}

double text_width(const std::string& text) {
  return 6.6 * static_cast<double>(text.size());
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string overview_svg(const Results& results) {
  struct Bar {
    std::string name, detail;
    std::vector<Phase> phases;
  };
  std::vector<Bar> bars;
  const auto add = [&](const Side& side) {
    const Run* run = median_run(side.runs, results.last_key);
    if (run == nullptr) return;
    auto phases = phases_of(*run, results.command);
    if (!phases.empty())
      bars.push_back({side.name, side.version + ", " + side.device, std::move(phases)});
  };
  add(results.ours);
  for (const Duel& duel : results.duels) add(duel.theirs);
  if (bars.empty()) return {};

  constexpr double kRow = 58;
  constexpr double kBar = 26;
  double longest = 0;
  for (const Bar& bar : bars) longest = std::max(longest, bar.phases.back().end);
  const Scale scale{190, 860, longest};
  const double bottom = 8 + kRow * static_cast<double>(bars.size());

  // The legend names each phase once, in the order of the bars.
  std::vector<Phase> legend;
  for (const Bar& bar : bars) {
    for (const Phase& phase : bar.phases) {
      if (std::ranges::none_of(legend, [&](const Phase& p) { return p.name == phase.name; }))
        legend.push_back(phase);
    }
  }
  std::string keys;
  double x = scale.left;
  double y = bottom + 42;
  for (const Phase& phase : legend) {
    const double width = text_width(phase.name) + 44;
    if (x + width > kWidth) {
      x = scale.left;
      y += 22;
    }
    keys += box(x, y - 11, 13, 13, phase.style, phase.name);
    keys += text_at(x + 19, y, "legend", phase.name);
    x += width;
  }

  std::string out = svg_open(y + 10, "The median run of each VMM on one scale");
  out += scale.grid(4, bottom);
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double top = 14 + kRow * static_cast<double>(i);
    out += text_at(scale.left - 12, top + 12, "name", bars[i].name);
    out += text_at(scale.left - 12, top + 27, "detail", bars[i].detail);
    for (const Phase& phase : bars[i].phases) {
      const std::string time = duration_text(phase.end - phase.begin);
      const double width = scale.x(phase.end) - scale.x(phase.begin);
      out += box(scale.x(phase.begin), top, std::max(width - 1, 0.8), kBar, phase.style,
                 phase.name + ": " + time);
      if (width > 1.15 * text_width(time) + 8)
        out += text_at(scale.x(phase.begin) + width / 2, top + 17, "inside", time);
    }
    const double end = bars[i].phases.back().end;
    out += text_at(scale.x(end) + 6, top + 18, "total", duration_text(end));
  }
  return out + keys + "</svg>\n";
}

std::string waterfall_svg(const Side& side, const std::string& last_key) {
  const Run* run = median_run(side.runs, last_key);
  if (run == nullptr || run->marks.empty()) return {};
  // What comes after the measured time is not part of its picture.
  std::vector<Mark> marks = run->marks;
  const double last = run->at(last_key).value_or(marks.back().at);
  std::erase_if(marks, [&](const Mark& mark) { return mark.at > last || mark.at <= 0; });
  if (marks.empty()) return {};

  constexpr double kRow = 22;
  const Scale scale{280, 800, marks.back().at};
  const double bottom = 26 + kRow * static_cast<double>(marks.size());
  std::string out = svg_open(bottom + 26, "The median run of " + side.name + ", mark by mark");
  out += text_at(scale.right + 72, 14, "head", "step");
  out += text_at(kWidth - 4, 14, "head", "at");
  out += scale.grid(22, bottom);
  double before = 0;
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const Mark& mark = marks[i];
    const double top = 26 + kRow * static_cast<double>(i);
    const std::string step = duration_text(mark.at - before);
    out += text_at(scale.left - 10, top + 14, "row", label_of(mark.device, mark.name));
    out += box(scale.x(before), top + 4, std::max(scale.x(mark.at) - scale.x(before), 1.5), 13,
               style_of(mark), label_of(mark.device, mark.name) + ": " + step);
    out += text_at(scale.right + 72, top + 14, "figure", "+" + step);
    out += text_at(kWidth - 4, top + 14, "figure", duration_text(mark.at));
    before = mark.at;
  }
  return out + "</svg>\n";
}

std::string ratios_svg(const Duel& duel) {
  const Sample ratios = duel.ratios();
  if (ratios.empty()) return {};
  constexpr double kHeight = 74;
  constexpr double kLine = 34;
  const double most = std::max(ratios.max() * 1.1, 1.1);
  const Scale scale{20, kWidth - 20, most};
  std::string out = svg_open(kHeight, "The ratio of each pair");
  const double step = tick_step(most);
  for (double at = 0; at <= most; at += step) {
    out += fmt::format(R"(<line x1="{0:.1f}" x2="{0:.1f}" y1="8" y2="52" class="grid"/>)",
                       scale.x(at)) +
           "\n";
    out += text_at(scale.x(at), 68, "tick", fmt::format("{:g}", std::round(at * 1e6) / 1e6));
  }
  out +=
      fmt::format(R"(<line x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="56" class="even"/>)", scale.x(1)) +
      "\n";
  for (const double ratio : ratios.values()) {
    out += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="5" class="dot"><title>{}</title>)"
                       "</circle>\n",
                       scale.x(ratio), kLine, ratio_text(ratio));
  }
  const double median = ratios.median();
  out += fmt::format(R"(<line x1="{0:.1f}" x2="{0:.1f}" y1="18" y2="50" class="median"/>)",
                     scale.x(median)) +
         "\n";
  const bool at_right = scale.x(median) > kWidth * 0.7;
  out += text_at(scale.x(median) + (at_right ? -6 : 6), 16, at_right ? "figure" : "legend",
                 "median " + ratio_text(median));
  return out + "</svg>\n";
}

}  // namespace outboard::bench
