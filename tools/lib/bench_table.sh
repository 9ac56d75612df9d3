# shellcheck shell=bash disable=SC2154,SC1112,SC2016
# The README's table of figures, from the JSON files of outboard-bench. Sourced by tools/bench-all.

# One jq library for all rows: figures as people read them, and the pieces of a result.
bench_jq='
def digits($x): if $x >= 100 then ($x | round | tostring) elif $x >= 10 then (($x * 10 | round) / 10 | tostring) else (($x * 100 | round) / 100 | tostring) end;
def time: if . < 1000 then digits(.) + " ns" elif . < 1e6 then digits(. / 1e3) + " µs" elif . < 1e9 then digits(. / 1e6) + " ms" else digits(. / 1e9) + " s" end;
def size: digits(. / 1048576) + " MiB";
def ratio: (. * 1000 | round) / 1000 | tostring;
def spread: "\(.p50 | ratio) (\(.min | ratio) to \(.max | ratio))";
def mark($key): [.ours.marks[] | select(.key == $key)][0].at_ns;
def percentiles: "\(.p50 | time) (p90 \(.p90 | time), p99 \(.p99 | time))";
def verdict($met): if $met then " ✓" else " ✗" end;
def row($what; $figure; $against; $ratio; $target; $command): "| \($what) | \($figure) | \($against) | \($ratio) | \($target) | `\($command)` |";
'

bench_row() { # bench_row FILE.json PROGRAM: nothing when the file is not there; $one is start.json
  [[ -s $1 ]] || return 0
  jq -r --slurpfile one "$base" "$bench_jq $2" "$1" || say "no row from ${1##*/}"
}

host_line() { # host_line FILE.json PART: the machine it was taken on
  jq -r --arg part "$2" '"*\($part)*: \(.host.cpu_model)\(if .host.virtual then " (virtual)" else "" end), \(.host.cpus) CPUs (used: \(.host.placement)), Linux \(.host.kernel), pages of \(.host.page_size), \(.host.kvm) KVM, load \(.host.load * 10 | round / 10)."' "$1"
}

bench_table() { # bench_table DIR
  local dir=$1 reason one=$1/start.json base=/dev/null
  if [[ -s $one ]]; then base=$one; fi
  printf 'Taken %s with `tools/bench-all`; p50 of cold runs unless said otherwise.\n\n' "$(date -u +%Y-%m-%d)"
  printf '| what | outboard | beside | ratio | to reach | command: `outboard-bench …` |\n|---|---|---|---|---|---|\n'
  bench_row "$one" 'mark("first_run") as $m | row("process start to first KVM_RUN: payload, 512 MiB, one device"; $m | percentiles; ""; ""; "10 ms" + verdict($m.p50 <= 10e6); "start")'
  bench_row "$dir/start-qemu.json" '.pairs[] | row("the same, to the payload’s first byte of output"; .ours_ns.p50 | time; "\(.theirs.name) \(.theirs.version), \(.theirs.device): \(.theirs_ns.p50 | time)"; .ratio | spread; (if .theirs.name == "QEMU q35" then "1/5" + verdict(.ratio.p50 <= 0.2) else "" end); "start --vs qemu")'
  if [[ -s $one ]]; then
    bench_row "$dir/start-two.json" 'mark("first_run") as $m | ($one[0] | mark("first_run").p50) as $b | row("two devices"; $m.p50 | time; "one device: \($b | time)"; $m.p50 / $b | ratio; "1"; "start --devices 2")'
    bench_row "$dir/start-4g.json" 'mark("first_run") as $m | ($one[0] | mark("first_run").p50) as $b | row("guest memory 4 GiB"; $m.p50 | time; "512 MiB: \($b | time)"; $m.p50 / $b | ratio; "1.2" + verdict($m.p50 / $b <= 1.2); "start --memory 4G")'
  fi
  bench_row "$dir/start-kernel.json" 'mark("first_run") as $m | (.load_floor_ns.p50 + ($one[0] | mark("first_run").p50)) as $f | row("stock Debian kernel, a bzImage unpacked in each run"; $m.p50 | time; "payload + unpack and copy, one thread: \($f | time)"; $m.p50 / $f | ratio; "1.15" + verdict($m.p50 / $f <= 1.15); "start --kernel vmlinuz --unpack-each")'
  bench_row "$dir/start-kept.json" 'mark("first_run") as $m | (.load_floor_ns.p50 + ($one[0] | mark("first_run").p50)) as $f | row("stock Debian kernel, a bzImage unpacked by an earlier run"; $m.p50 | time; "payload + copy, one thread: \($f | time)"; $m.p50 / $f | ratio; "1.15" + verdict($m.p50 / $f <= 1.15); "start --kernel vmlinuz")'
  bench_row "$one" '.ours.median_run_counts as $c | [$c | to_entries[] | select(.key | endswith(": attach round trips")) | .value][0] as $n | select($n) | row("attach of one device: dependent round trips"; $n; ""; ""; "4" + verdict($n <= 4); "start")'
  bench_row "$one" '.ours.memory_bytes as $m | select($m) | row("RssAnon + RssFile, without the guest’s memory"; $m.p50 | size; ""; ""; "5 MiB" + verdict($m.p50 <= 5 * 1048576); "start")'
  bench_row "$dir/start-qemu.json" '.pairs[] | select(.theirs.memory_bytes) | row("the same of QEMU"; ""; "\(.theirs.name): \(.theirs.memory_bytes.p50 | size)"; ""; ""; "start --vs qemu")'
  bench_row "$dir/access.json" '.rows[] | row(.name; .ns | "\(.p50 | time) (p90 \(.p90 | time))"; "\(.floor.name): \(.floor.ns.p50 | time)"; .ratio.p50 | ratio; (if .target then "\(.target.at_most)" + verdict(.target.met) else "" end); "access")'
  bench_row "$dir/access.json" '.figures[] | row(.name; "\(.median | if . >= 1000 then round else . * 100 | round / 100 end) \(.unit)"; ""; ""; (if .target then "\(.target.at_most // .target.at_least)" + verdict(.target.met) else "" end); "access")'
  bench_row "$dir/boot.json" 'select(.pairs == []) | mark(.last_key) as $m | row("process start to the guest kernel’s first completed NVMe read"; $m | percentiles; ""; ""; ""; "boot-to-io --kernel vmlinuz")'
  bench_row "$dir/boot.json" '.pairs[] | row("process start to the guest kernel’s first completed NVMe read"; .ours_ns.p50 | time; "\(.theirs.name) \(.theirs.version), \(.theirs.device): \(.theirs_ns.p50 | time)"; .ratio | spread; (if .theirs.name == "QEMU q35" then "1/2" + verdict(.ratio.p50 <= 0.5) else "1" + verdict(.ratio.p50 < 1) end); "boot-to-io --kernel vmlinuz --vs qemu")'
  bench_row "$dir/boot-unpacked.json" '.pairs[] | row("process start to the guest kernel’s first completed NVMe read, every VMM given the unpacked kernel"; .ours_ns.p50 | time; "\(.theirs.name) \(.theirs.version), \(.theirs.device): \(.theirs_ns.p50 | time)"; .ratio | spread; (if .theirs.name == "QEMU q35" then "1/2" + verdict(.ratio.p50 <= 0.5) else "1" + verdict(.ratio.p50 < 1) end); "boot-to-io --kernel vmlinuz --unpack --vs qemu")'
  printf '\n'
  if [[ -s $one ]]; then host_line "$one" "start, access"; fi
  if [[ -s $dir/boot.json ]]; then
    host_line "$dir/boot.json" "boot-to-io"
    if [[ $(host_kind) != hardware ]]; then
      printf 'Inside `tools/testbed --steady`: an emulated machine whose clock counts instructions. Its ratios count, its times mean nothing.\n'
    fi
  fi
  for reason in "${skipped[@]}"; do printf 'Not measured: %s.\n' "$reason"; done
}
