# shellcheck shell=bash disable=SC2034,SC2154
# Counts tests, group by group. Sourced by tools/test.

passed=0 failed=0 skipped=0
failures=() skips=() repeats=()
group_lines=()
group_title='' group_start=0 group_before=()

begin_group() { # begin_group TITLE
  group_title=$1
  group_start=$(now_ms)
  group_before=("$passed" "$failed" "$skipped")
  printf '\n== %s\n' "$group_title"
}

end_group() {
  local line
  line=$(printf '%-34s %8s s  %5d passed %3d failed %3d skipped' "$group_title" "$(seconds_since "$group_start")" \
    $((passed - group_before[0])) $((failed - group_before[1])) $((skipped - group_before[2])))
  group_lines+=("$line")
  printf '== %s\n' "$line"
}

pass() { passed=$((passed + 1)); }
fail() { # fail NAME WHY
  failed=$((failed + 1))
  failures+=("$group_title: $1${2:+: $2}")
  printf 'FAILED: %s%s\n' "$1" "${2:+: $2}"
}
skip() { # skip NAME WHY [COUNT]
  skipped=$((skipped + ${3:-1}))
  skips+=("$group_title: $1: $2")
  printf 'skipped: %s: %s\n' "$1" "$2"
}

# expect NAME COMMAND...: one test; its output is shown if it fails.
expect() {
  local name=$1 log=$logs/expect.log
  shift
  if "$@" >"$log" 2>&1 </dev/null; then
    pass
    printf 'passed: %s\n' "$name"
  else
    head -n 40 "$log" | sed 's/^/    /'
    fail "$name" "see above"
  fi
}

# count_lines: reads "ok - …", "not ok - …", "ok - … # SKIP why" on standard input, shows and counts them. What failed
# and runs again ("# in this emulated machine: …") is shown once more in the summary.
count_lines() {
  local line
  while IFS= read -r line; do
    case $line in
      'ok - '*' # SKIP '*) line=${line#ok - }; skip "${line%% # SKIP*}" "${line#*# SKIP }" ;;
      'ok - '*) pass; printf '%s\n' "$line" ;;
      'not ok - '*) fail "${line#not ok - }" ;;
      '# in this emulated machine: '*) repeats+=("$group_title: ${line#*: not ok - }"); printf '%s\n' "$line" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done
}

# count_ctest LOG [elsewhere]: counts the cases in the output of 'ctest -V': doctest's own numbers where a program prints
# them (one summary a run), else one a program. A program that fails without a failed case counts as one failed.
# Cases that a program leaves out count as skipped, unless they run elsewhere.
count_ctest() {
  local kind name number why
  while IFS=$'\t' read -r kind name number why; do
    case $kind in
      pass) passed=$((passed + number)) ;;
      fail) failed=$((failed + number)); failures+=("$group_title: $name: $number failed") ;;
      skip) skip "$name" "${why:-$number test cases left out by the program}" "$number" ;;
    esac
  done < <(awk -v elsewhere="${2:-}" '
    match($0, /^[0-9]+: /) { id = substr($0, 1, RLENGTH - 2) }
    /^[0-9]+: .*\[doctest\] test cases:/ {
      line = $0; sub(/.*test cases: */, "", line); gsub(/[|a-z]/, " ", line); split(line, n, " ")
      p[id] += n[2]; f[id] += n[3]; if (!elsewhere) s[id] += n[4]; seen[id] = 1
    }
    /^[0-9]+: .*(SKIPPED|[Ss]kipped): / { if (!(id in why)) { why[id] = $0; sub(/^[0-9]+: */, "", why[id]) } }
    match($0, /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: /) {
      id = substr($0, RSTART, RLENGTH); sub(/.*#/, "", id); sub(/:.*/, "", id)
      name[id] = substr($0, RSTART + RLENGTH); sub(/ .*/, "", name[id])
      if ($0 ~ /Passed/) { if (!seen[id]) p[id] = 1 }
      else if ($0 ~ /Skipped|Disabled/) { s[id] = s[id] ? s[id] : 1 }
      else if (!f[id]) f[id] = 1
    }
    END {
      for (id in name) {
        if (p[id]) printf "pass\t%s\t%d\n", name[id], p[id]
        if (f[id]) printf "fail\t%s\t%d\n", name[id], f[id]
        if (s[id]) printf "skip\t%s\t%d\t%s\n", name[id], s[id], why[id]
      }
    }' "$1")
}

summary() {
  local line
  printf '\n== Time of each group\n'
  printf '%s\n' "${group_lines[@]}"
  if ((${#skips[@]})); then
    printf '\n== Skipped\n'
    printf '%s\n' "${skips[@]}"
  fi
  if ((${#repeats[@]})); then
    printf '\n== Failed in one emulated machine, so run again in a fresh one\n'
    printf '%s\n' "${repeats[@]}"
  fi
  if ((${#failures[@]})); then
    printf '\n== Failed\n'
    printf '%s\n' "${failures[@]}"
  fi
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
}
