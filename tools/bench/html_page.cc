#include "tools/bench/html_page.h"

#include <fmt/core.h>

#include "tools/bench/html_style.h"
#include "tools/bench/text_table.h"
#include "tools/bench/timeline.h"
#include "tools/bench/units.h"

namespace outboard::bench {
namespace {

std::string tile(const std::string& figure, const std::string& meaning) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape_html(figure),
                     escape_html(meaning));
}

std::string tiles(const Results& results) {
  std::string out = "<div class=\"tiles\">\n";
  const Sample total = times_of(results.ours.runs, results.last_key);
  const bool start = results.command == "start";
  if (start) {
    if (const Sample first = times_of(results.ours.runs, kFirstRun); !first.empty())
      out +=
          tile(duration_text(first.median()), "outboard: process start to first KVM_RUN, median");
  }
  if (!total.empty())
    out += tile(duration_text(total.median()),
                start ? "outboard: to the guest's first byte, median"
                      : "outboard: process start to the first completed read, median");
  for (const Duel& duel : results.duels) {
    out += tile(duration_text(duel.theirs_times().median()),
                fmt::format("{} {}: the same, median", duel.theirs.name, duel.theirs.version));
    const double ratio = duel.ratios().median();
    out += ratio < 1 && ratio > 0
               ? tile(fmt::format("{}×", ratio_text(1 / ratio)),
                      fmt::format("outboard is faster than {} (ratio {}, median of {} pairs)",
                                  duel.theirs.name, ratio_text(ratio), duel.ratios().size()))
               : tile(ratio_text(ratio), fmt::format("outboard / {}, median of {} pairs",
                                                     duel.theirs.name, duel.ratios().size()));
  }
  if (const Sample memory = memory_of(results.ours.runs); start && !memory.empty())
    out += tile(size_text(memory.median()), "outboard's own memory, without the guest's");
  return out + "</div>\n";
}

std::string percentiles(const Side& side) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>since process start</th><th>p50</th><th>p90</th>"
      "<th>p99</th><th>step p50</th><th>runs</th></tr></thead><tbody>\n";
  for (const Row& row : rows_of(side.runs)) {
    out +=
        fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                    escape_html(label_of(row.device, row.name)), duration_text(row.at.median()),
                    duration_text(row.at.p90()), duration_text(row.at.p99()),
                    duration_text(row.step.median()), row.at.size());
  }
  return out + "</tbody></table></div>\n";
}

std::string side_section(const Side& side, const std::string& last_key) {
  std::string command;
  for (const std::string& word : side.command) {
    const bool quote = word.empty() || word.find_first_of(" {}\"") != std::string::npos;
    command += (command.empty() ? "" : " ") + (quote ? "'" + word + "'" : word);
  }
  std::string counts;
  if (const Run* run = median_run(side.runs, last_key); run != nullptr && !run->counts.empty()) {
    counts = "<details><summary>Counts of the median run</summary><dl>";
    for (const auto& [name, count] : run->counts)
      counts += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(name), count);
    counts += "</dl></details>\n";
  }
  return fmt::format(
      "<section><h2>{} {}, mark by mark</h2>\n"
      "<p class=\"soft\">Its median run of {}, on a scale of its own; each bar is the time since "
      "the "
      "mark before it. Marks of <span class=\"key p1\" style=\"margin-left:2px\"></span>the VMM"
      "<span class=\"key p2\"></span>its device"
      "<span class=\"key p3\"></span>the device server"
      "<span class=\"key p0\"></span>outboard-bench</p>\n{}"
      "<details open><summary>Percentiles over all {} runs</summary>{}</details>\n{}"
      "<details><summary>Command</summary><code>{}</code></details></section>\n",
      escape_html(side.name), escape_html(side.version), side.runs.size(),
      waterfall_svg(side, last_key), side.runs.size(), percentiles(side), counts,
      escape_html(command));
}

std::string duel_section(const Duel& duel) {
  std::string rows;
  const Sample ours = duel.ours_times();
  const Sample theirs = duel.theirs_times();
  const Sample ratios = duel.ratios();
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", i + 1,
                        i % 2 == 0 ? "outboard" : escape_html(duel.theirs.name),
                        duration_text(ours.values()[i]), duration_text(theirs.values()[i]),
                        ratio_text(ratios.values()[i]));
  }
  return fmt::format(
      "<section><h2>outboard beside {} {}, pair by pair</h2>\n"
      "<p class=\"soft\">Ratio outboard / {}: each dot is one pair, run in turn, the order "
      "alternated; the dashed line is 1, where both are equal. Compared: {}.</p>\n{}"
      "<details><summary>All {} pairs</summary><div "
      "class=\"scroll\"><table><thead><tr><th>pair</th>"
      "<th>first</th><th>outboard</th><th>{}</th><th>ratio</th></tr></thead><tbody>\n{}"
      "</tbody></table></div></details></section>\n",
      escape_html(duel.theirs.name), escape_html(duel.theirs.version),
      escape_html(duel.theirs.name), escape_html(duel.what), ratios_svg(duel), ratios.size(),
      escape_html(duel.theirs.name), rows);
}

std::string host_section(const Results& results) {
  const HostFacts& host = results.host;
  std::string out = "<section><h2>The machine</h2><dl>\n";
  const auto fact = [&out](const char* name, const std::string& value) {
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, escape_html(value));
  };
  fact("CPU", host.cpu_model + (host.hypervisor.empty() ? "" : " (a virtual machine)"));
  fact("CPUs", fmt::format("{} online; runs may use {}", host.cpus, host.placement));
  fact("kernel", "Linux " + host.kernel);
  fact("pages", host.page_size);
  fact("KVM", host.kvm == "software"
                  ? "software: guest kernels are interpreted there, times of guests mean little"
                  : host.kvm);
  fact("load at the start", fmt::format("{:.2f}", host.load));
  out += "</dl>\n";
  for (const std::string& note : results.notes)
    out += "<p class=\"soft\">" + escape_html(note) + "</p>\n";
  return out + "</section>\n";
}

}  // namespace

std::string html_page(const Results& results) {
  std::string body;
  body += "<h1>outboard-bench " + escape_html(results.command) + "</h1>\n<p class=\"soft\">" +
          escape_html(results.title) + "</p>\n";
  body += tiles(results);
  body += "<section><h2>The median run" +
          std::string(results.duels.empty() ? "" : ", side by side") +
          "</h2>\n<p class=\"soft\">Time from process start, left to right" +
          (results.duels.empty() ? "" : ", all on one scale") + ".</p>\n" + overview_svg(results) +
          "</section>\n";
  for (const Duel& duel : results.duels) body += duel_section(duel);
  body += side_section(results.ours, results.last_key);
  for (const Duel& duel : results.duels) body += side_section(duel.theirs, results.last_key);
  body += host_section(results);
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<title>outboard-bench {}</title><style>{}</style></head>\n<body><main>\n{}</main></body>"
      "</html>\n",
      escape_html(results.command), html_style(), body);
}

}  // namespace outboard::bench
