# shellcheck shell=bash disable=SC2154
# Test programs of another architecture than the host's: those of their tests that qemu-user cannot run
# (tests/needs_kernel) run here, and the arm64 machine's own small guests. Sourced by tests/guest/suite.
#
# PROGRAMS is a folder that looks like a build folder but holds only what is needed; PROGRAMS_BUILT_IN is where it
# was made, a name that the programs carry.

link_programs() {
  mkdir -p "$(dirname "$PROGRAMS_BUILT_IN")"
  [[ -e $PROGRAMS_BUILT_IN ]] || ln -s "$PROGRAMS" "$PROGRAMS_BUILT_IN"
}

group micro 200 "hand-made arm64 guests: boot protocol, PSCI, the GIC's pins and its reset" aarch64
test_micro() {
  local program=${PROGRAMS:-}/tests/micro/aarch64/micro log=$group_dir/micro.log
  if [[ ! -x $program ]]; then
    skip "no test programs were given (--programs DIR)"
    return
  fi
  link_programs
  if timeout "$(time_left)" "$program" >"$log" 2>&1 </dev/null; then
    ok "micro: $(sed -n 's/.*test cases: *[0-9]* *| *\([0-9]* passed\).*/\1/p' "$log")"
  else
    not_ok "micro" "$(grep -aE 'ERROR|FATAL|^TEST CASE|test cases:|SKIPPED' "$log" | head -n 6 | tr '\n' ' ')"
  fi
}

group programs 400 "tests that need io_uring, huge pages or seccomp, as arm64 programs" aarch64
test_programs() {
  local program name patterns log
  if [[ ! -d ${PROGRAMS:-} ]]; then
    skip "no test programs were given (--programs DIR)"
    return
  fi
  patterns=$(grep -v '^#' "$PROGRAMS/needs_kernel" | paste -sd,)
  link_programs
  echo 16 >/proc/sys/vm/nr_hugepages
  for program in "$PROGRAMS"/tests/*; do
    [[ -f $program ]] || continue
    name=${program##*/} log=$group_dir/${program##*/}.log
    if ! "$program" -tc="$patterns" -ltc | grep -q '^\[doctest\] unskipped test cases passing the current filters: [1-9]'; then continue; fi
    if (cd /tmp && timeout "$(time_left)" "$program" -tc="$patterns" >"$log" 2>&1 </dev/null); then
      ok "$name: $(sed -n 's/.*test cases: *[0-9]* *| *\([0-9]* passed\).*/\1/p' "$log")"
    else
      not_ok "$name" "$(grep -aE 'ERROR|FATAL|^TEST CASE|test cases:' "$log" | head -n 6 | tr '\n' ' ')"
    fi
  done
}
