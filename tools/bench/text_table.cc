#include "tools/bench/text_table.h"

#include <fmt/core.h>

#include "tools/bench/units.h"

namespace outboard::bench {
namespace {

// Width in columns of what a terminal shows: "µ" is one.
std::string left_aligned(const std::string& text, std::size_t width) {
  std::size_t columns = 0;
  for (const char c : text)
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++columns;
  return text + std::string(columns < width ? width - columns : 0, ' ');
}

std::string right_aligned(const std::string& text, std::size_t width) {
  std::size_t columns = 0;
  for (const char c : text)
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++columns;
  return std::string(columns < width ? width - columns : 0, ' ') + text;
}

constexpr std::size_t kLabel = 42;
constexpr std::size_t kFigure = 11;

void add_side(std::string& out, const Side& side) {
  out += fmt::format("\n{} {}, {} ({} runs)\n", side.name, side.version, side.device,
                     side.runs.size());
  out += left_aligned("  since process start", kLabel);
  for (const char* head : {"p50", "p90", "p99", "step p50"}) out += right_aligned(head, kFigure);
  out += right_aligned("runs", 7) + "\n";
  for (const Row& row : rows_of(side.runs)) {
    out += left_aligned("  " + label_of(row.device, row.name), kLabel);
    for (const double figure : {row.at.median(), row.at.p90(), row.at.p99(), row.step.median()})
      out += right_aligned(duration_text(figure), kFigure);
    out += right_aligned(std::to_string(row.at.size()), 7) + "\n";
  }
  if (const Sample memory = memory_of(side.runs); !memory.empty())
    out += fmt::format("  memory (RssAnon + RssFile, without the guest's): {} median, {} most\n",
                       size_text(memory.median()), size_text(memory.max()));
}

void add_duel(std::string& out, const Duel& duel) {
  const Sample ours = duel.ours_times();
  const Sample theirs = duel.theirs_times();
  const Sample ratios = duel.ratios();
  out += fmt::format(
      "\n{} beside {} {} ({}): {} pairs, order alternated\n  compared: {}\n"
      "  {} median {} (p90 {}), {} median {} (p90 {})\n"
      "  ratio {} / {}, pair by pair: median {}, from {} to {}\n",
      duel.ours.name, duel.theirs.name, duel.theirs.version, duel.theirs.device, ratios.size(),
      duel.what, duel.ours.name, duration_text(ours.median()), duration_text(ours.p90()),
      duel.theirs.name, duration_text(theirs.median()), duration_text(theirs.p90()), duel.ours.name,
      duel.theirs.name, ratio_text(ratios.median()), ratio_text(ratios.min()),
      ratio_text(ratios.max()));
  const Sample our_memory = memory_of(duel.ours.runs);
  const Sample their_memory = memory_of(duel.theirs.runs);
  if (!our_memory.empty() && !their_memory.empty())
    out += fmt::format("  memory without the guest's: {} {}, {} {}\n", duel.ours.name,
                       size_text(our_memory.median()), duel.theirs.name,
                       size_text(their_memory.median()));
}

}  // namespace

std::string label_of(const std::string& device, const std::string& name) {
  return device.empty() || device == "bench" ? name : device + ": " + name;
}

std::string text_table(const Results& results) {
  std::string out = fmt::format("outboard-bench {}: {}\n{}\n", results.command, results.title,
                                to_string(results.host));
  add_side(out, results.ours);
  for (const Duel& duel : results.duels) add_side(out, duel.theirs);
  for (const Duel& duel : results.duels) add_duel(out, duel);
  if (!results.load_floor.empty())
    out += fmt::format("\nfloor: {} to {} the kernel file into guest memory, and nothing else\n",
                       duration_text(results.load_floor.median()), results.floor_is);
  for (const std::string& note : results.notes) out += "\nnote: " + note + "\n";
  return out;
}

}  // namespace outboard::bench
