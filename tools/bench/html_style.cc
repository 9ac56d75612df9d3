#include "tools/bench/html_style.h"

namespace outboard::bench {

std::string_view html_style() {
  return R"CSS(
:root { --page: #fbfbfa; --card: #ffffff; --ink: #1d1d1f; --soft: #5d6066; --line: #e1e2e4;
  --p0: #9a9da3; --p1: #2f6fd0; --p2: #17936c; --p3: #d98a00; --p4: #7a4fc9; --p5: #c2486b;
  --inside: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --page: #17181a; --card: #1f2124; --ink: #ececee; --soft: #a4a8af; --line: #34373c;
    --p0: #7d8188; --p1: #5b97ee; --p2: #3fbf95; --p3: #eaa936; --p4: #a987ea; --p5: #e37b97;
    --inside: #101114; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 4px 0 10px; }
.soft, figcaption { color: var(--soft); font-size: 13.5px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin-top: 18px; }
.tiles { display: flex; flex-wrap: wrap; gap: 14px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 18px; flex: 1 1 200px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13.5px; }
svg { width: 100%; height: auto; display: block; margin-top: 8px; }
svg text { font-size: 12.5px; fill: var(--ink); font-family: inherit; }
svg .name, svg .row, svg .detail, svg .figure, svg .head { text-anchor: end; }
svg .name { font-weight: 600; font-size: 14px; }
svg .detail, svg .tick, svg .head { fill: var(--soft); font-size: 11.5px; }
svg .tick, svg .inside { text-anchor: middle; }
svg .inside { fill: var(--inside); font-weight: 600; }
svg .total { font-weight: 600; }
svg .figure { font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .even { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .median { stroke: var(--ink); stroke-width: 2.5; }
svg .dot { fill: var(--p1); fill-opacity: .45; stroke: var(--p1); }
.p0 { fill: var(--p0); } .p1 { fill: var(--p1); } .p2 { fill: var(--p2); } .p3 { fill: var(--p3); }
.p4 { fill: var(--p4); } .p5 { fill: var(--p5); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; }
.scroll { overflow-x: auto; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); }
code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 14px; }
.key.p0 { background: var(--p0); } .key.p1 { background: var(--p1); }
.key.p2 { background: var(--p2); } .key.p3 { background: var(--p3); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0 0; }
dt { color: var(--soft); } dd { margin: 0; }
)CSS";
}

}  // namespace outboard::bench
