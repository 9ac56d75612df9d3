# shellcheck shell=bash disable=SC2154,SC2034,SC2046
# The groups of tools/test, each a function. Sourced by tools/test.

jobs=$(nproc)

project_sources() { git_files '*.cc' '*.h' '*.S'; }
shell_scripts() {
  local file
  git_files | while IFS= read -r file; do
    case $file in
      *.sh) echo "$file" ;;
      *.*) ;;
      *) if head -c 30 "$repo_root/$file" | grep -qE '^#!.*\b(ba)?sh\b'; then echo "$file"; fi ;;
    esac
  done
}

# Files of the repository, also from an unpacked archive that has no .git.
git_files() {
  if git -C "$repo_root" rev-parse --git-dir >/dev/null 2>&1; then
    (cd "$repo_root" && git ls-files -co --exclude-standard -- "$@" | while IFS= read -r f; do if [[ -f $f ]]; then echo "$f"; fi; done)
  else
    (cd "$repo_root" && find . -path ./build -prune -o -type f -printf '%P\n' | sort \
      | if (($#)); then grep -E "($(printf '%s|' "${@//\*/.*}" | sed 's/|$//'))$"; else cat; fi)
  fi
}

# Names the files that clang-format would change.
formatted() {
  local log=$logs/format.log
  cd "$repo_root" || return 1
  project_sources | grep -E '\.(cc|h)$' | xargs clang-format --dry-run --Werror 2>"$log" && return
  echo "these files differ from what clang-format makes of them; run 'clang-format -i' on each:"
  grep -oE '^[^ :]+:[0-9]+' "$log" | cut -d: -f1 | sort | uniq -c
  return 1
}

group_format() {
  begin_group "format"
  expect "clang-format: every source is formatted" formatted
  end_group
}

group_shellcheck() {
  begin_group "shellcheck"
  expect "shellcheck: every script is clean" \
    bash -c 'cd "$1" && shift && shellcheck -x -S warning -P SCRIPTDIR "$@"' shellcheck "$repo_root" $(shell_scripts)
  expect "every tool explains itself (--help)" \
    bash -c 'cd "$1" && for tool in setup sysroot testbed quickstart test bench-all fuzz; do tools/$tool --help | grep -q "tools/$tool" || exit 1; done' help "$repo_root"
  end_group
}

# build_preset PRESET [TARGET...]: configures and builds; remembers whether it worked.
declare -A built=()
build_preset() {
  local preset=$1 options=() status=0
  shift
  if command -v ccache >/dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
  if [[ $preset != release && $preset != aarch64 ]]; then
    options+=(-DOUTBOARD_PRECOMPILE=ON)
    if ((quick)); then options+=(-DOUTBOARD_BENCH=OFF); else options+=(-DOUTBOARD_BENCH=ON); fi
    export CCACHE_SLOPPINESS=pch_defines,time_macros  # what ccache asks for with precompiled headers
    if command -v mold >/dev/null && [[ $preset != aarch64* ]]; then options+=(-DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=mold); fi
  fi
  begin_group "build $preset"
  if with_progress "configuring $preset" cmake -S "$repo_root" --preset "$preset" "${options[@]}" \
    && with_progress "building $preset" cmake --build "$repo_root/build/$preset" -j "$jobs" ${1:+--target "$@"}; then
    built[$preset]=1
    pass
  else
    fail "build of the preset $preset"
  fi
  end_group
}

have_build() { # have_build PRESET TITLE
  [[ -n ${built[$1]:-} ]] && return 0
  begin_group "$2"
  skip "$2" "the build of $1 failed"
  end_group
  return 1
}

# run_ctest PRESET TITLE [CTEST-ARGUMENT...]
run_ctest() {
  local preset=$1 title=$2 log status=0
  shift 2
  have_build "$preset" "$title" || return 0
  begin_group "$title"
  log=$logs/ctest-$preset.log
  # ThreadSanitizer needs addresses that newer kernels do not promise: no randomisation.
  setarch -R ctest --test-dir "$repo_root/build/$preset" -V -j "$jobs" --no-tests=error "$@" >"$log" 2>&1 </dev/null &
  local pid=$!
  cleanup_pids+=("$pid")
  tail -f --pid="$pid" -n +1 "$log" 2>/dev/null | grep --line-buffered -E '^ *[0-9]+/[0-9]+ Test ' || true
  wait "$pid" || status=$?
  local before=$failed counted=$((passed + failed + skipped))
  count_ctest "$log" "$([[ $preset != aarch64* ]] || echo elsewhere)"
  if ((failed > before)); then
    { grep -E '^[0-9]+: ' "$log" | grep -aE -A 8 'ERROR|error:|FATAL|Sanitizer' | head -n 80 | sed 's/^/    /'; } || true
    printf 'the whole log: %s\n' "$log"
  elif ((status)); then
    tail -n 5 "$log"
    fail "$title" "ctest ended with status $status"
  elif ((passed + failed + skipped == counted)); then
    fail "$title" "no test ran"
  fi
  end_group
}

# Each fuzz target for a few seconds, two at a time, the same way each time; a search is tools/fuzz.
group_fuzz() {
  local seconds=10 target running=0 targets
  if ((full)); then seconds=60; fi
  mapfile -t targets < <(fuzz_targets)
  begin_group "fuzz, $seconds s each"
  if build_fuzz_targets "${targets[@]}"; then
    for target in "${targets[@]}"; do
      if ((running == 2)); then wait -n || true; running=$((running - 1)); fi
      { repeat_fuzz_target "$target" "$seconds" "$logs/fuzz-$target.log" && touch "$logs/fuzz-$target.ok"; } &
      cleanup_pids+=("$!")
      running=$((running + 1))
    done
    while ((running > 0)); do wait -n || true; running=$((running - 1)); done
    for target in "${targets[@]}"; do
      if [[ -e $logs/fuzz-$target.ok ]]; then
        pass
        fuzz_summary "$target" "$logs/fuzz-$target.log"
      else
        fuzz_failure "$logs/fuzz-$target.log"
        fail "fuzz target $target" "its inputs are in $fuzz_found"
      fi
    done
  else
    fail "build of the fuzz targets"
  fi
  end_group
}

# clang-tidy starts in the background, behind everything else: the Linux guests leave it half of the machine.
tidy_pid=''
start_tidy() {
  if [[ -z ${built[debug]:-} ]]; then return; fi
  run_tidy "$repo_root/build/debug" "$jobs" >"$logs/tidy.log" 2>&1 </dev/null &
  tidy_pid=$!
  cleanup_pids+=("$tidy_pid")
}

group_tidy() {
  have_build debug "clang-tidy" || return 0
  begin_group "clang-tidy"
  local log=$logs/tidy.log status=0
  if [[ -z $tidy_pid ]]; then start_tidy; fi
  tail -f --pid="$tidy_pid" -n +1 "$log" \
    | awk '/^ok / {n++; if (n % 10 == 0) {print "    " n " files are clean"; fflush()} next} {print; fflush()}' || true
  wait "$tidy_pid" || status=$?
  if ((status)); then fail "clang-tidy" "see above"; else pass; fi
  end_group
}

group_install() {
  local prefix consumer
  have_build release "install and package" || return 0
  begin_group "install and package"
  new_temp_dir prefix
  expect "cmake --install" cmake --install "$repo_root/build/release" --prefix "$prefix"
  local program
  for program in outboard outboard-nvme outboard-bench; do
    expect "$program is installed and tells its version" "$prefix/bin/$program" --version
    expect "$program has a man page" test -s "$prefix/share/man/man1/$program.1"
    expect "the man page of $program has no fault" man_page_is_clean "$prefix/share/man/man1/$program.1"
  done
  expect "shell completion is installed" bash -c 'find "$1/share" -path "*bash-completion*" -name outboard | grep -q .' find "$prefix"
  expect "the bash completion is valid bash" bash -c '"$1" --completion bash | bash -n' completion "$prefix/bin/outboard"
  local unit
  for unit in outboard@.service outboard-nvme@.service outboard-nvme@.socket; do
    expect "$unit is installed" test -s "$prefix/lib/systemd/system/$unit"
  done
  if command -v systemd-analyze >/dev/null; then
    expect "systemd finds no fault in the units" units_are_clean "$prefix/lib/systemd/system"
  else
    skip "systemd finds no fault in the units" "there is no systemd-analyze"
  fi
  if command -v systemd-socket-activate >/dev/null; then
    expect "outboard-nvme serves the socket that systemd passes" socket_is_passed "$prefix/bin"
  else
    skip "outboard-nvme serves the socket that systemd passes" "there is no systemd-socket-activate"
  fi
  expect "no other room's header is installed" \
    bash -c '! grep -rhE "#include \"(vmm|devices|boot|tools)/" "$1/include"' include "$prefix"
  local guest=$repo_root/build/debug/tests/micro/guests/power_button
  case $(host_kind) in
    none | forbidden) skip "memory of the installed outboard" "$(host_sentence)" ;;
    *)
      if [[ -x $guest ]]; then
        expect "the installed outboard keeps at most 5 MiB beside the guest's memory" \
          vmm_is_small "$prefix/bin" "$guest" 5120
      else
        skip "memory of the installed outboard" "its guest is built with the debug preset"
      fi
      ;;
  esac
  new_temp_dir consumer
  expect "the package vfio_user is found and used by another project" \
    bash -euc 'cmake -S "$1" -B "$2" -G Ninja -DCMAKE_PREFIX_PATH="$3" -DCMAKE_BUILD_TYPE=Release && cmake --build "$2" -j "$4"' \
    consumer "$repo_root/vfio_user/examples" "$consumer" "$prefix" "$jobs"
  expect "its client reads the identity of its device, and outboard probe agrees" examples_talk "$consumer" "$prefix/bin/outboard"
  end_group
}

# outboard of the folder $1 runs the guest $2, which waits, with one vCPU and one NVMe device. What it
# keeps in anonymous memory and of files, guest memory and pages of the device apart: at most $3 KiB.
vmm_is_small() {
  local folder vmm server kib=0 tries
  new_temp_dir folder
  printf '[kernel]\npath = "%s"\n[[device]]\nsocket = "%s"\n' "$2" "$folder/s" >"$folder/m.toml"
  "$1/outboard-nvme" --socket "$folder/s" --memory 16M &
  server=$!
  cleanup_pids+=("$server")
  for ((tries = 0; tries < 500; ++tries)); do [[ -S $folder/s ]] && break || sleep 0.02; done
  "$1/outboard" run "$folder/m.toml" >"$folder/console" &
  vmm=$!
  cleanup_pids+=("$vmm")
  for ((tries = 0; tries < 500; ++tries)); do grep -q ready "$folder/console" && break || sleep 0.02; done
  kib=$(awk '/^[0-9a-f]+-/ {ours = $6 !~ /^\/memfd:/} /^Rss:/ && ours {sum += $2} END {print sum}' "/proc/$vmm/smaps")
  kill "$vmm" && wait "$vmm" && kill "$server" && wait "$server" || return 1
  echo "$kib KiB"
  ((kib > 0 && kib <= $3))
}

# The units of the folder $1, each as the instance "test".
units_are_clean() {
  local folder unit said
  new_temp_dir folder
  for unit in "$1"/outboard*@.*; do
    cp "$unit" "$folder/$(basename "${unit/@./@test.}")" || return 1
  done
  said=$(systemd-analyze verify --man=no "$folder"/* 2>&1) || { printf '%s\n' "$said"; return 1; }
  [[ -z $said ]] || { printf '%s\n' "$said"; return 1; }
}

# outboard-nvme of the folder $1, started by the first client of a socket that waits for one.
socket_is_passed() {
  local folder pid status=0
  new_temp_dir folder
  systemd-socket-activate --listen="$folder/s" --fdname=vfio-user \
    "$1/outboard-nvme" --socket fd:vfio-user --memory 16M --once &
  pid=$!
  cleanup_pids+=("$pid")
  until [[ -S $folder/s ]] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
  timeout 30 "$1/outboard" probe "$folder/s" >"$folder/said" || status=$?
  wait "$pid" || status=$?
  grep -q '4f42:0001' "$folder/said" || { cat "$folder/said"; return 1; }
  ((status == 0))
}

# The example device of the folder $1, attached to by the example client and by the program $2.
examples_talk() {
  local socket=$1/device.sock device status=0
  "$1/vfio_user_device" "$socket" &
  device=$!
  cleanup_pids+=("$device")
  until [[ -S $socket ]] || ! kill -0 "$device" 2>/dev/null; do sleep 0.02; done
  { timeout 20 "$1/vfio_user_identify" "$socket" && timeout 20 "$2" probe "$socket"; } >"$1/said" 2>&1 || status=$?
  kill "$device" 2>/dev/null
  wait "$device" || status=$?
  cat "$1/said"
  ((status == 0)) && (($(grep -ciE '1b36:0001' "$1/said") >= 2)) && ! [[ -e $socket ]]
}

man_page_is_clean() {
  local said
  said=$(MANROFFSEQ='' man --warnings=all -E UTF-8 -l -Tutf8 -Z "$1" 2>&1 >/dev/null)
  [[ -z $said ]] || { printf '%s\n' "$said"; return 1; }
}

group_micro_guests() {
  local title="programs on /dev/kvm, no Linux"
  have_build "$main_preset" "$title" || return 0
  begin_group "$title"
  case $(host_kind) in
    none | forbidden) skip "$title" "$(host_sentence)" ;;
    *) run_guest_tests --micro --bin "$repo_root/build/$main_preset" --out "$logs/micro" ;;
  esac
  end_group
}

group_linux_guests() {
  have_build release "Linux guests" || return 0
  begin_group "Linux guests"
  printf '%s\n' "$(host_sentence)"
  local options=(--testbed)
  if [[ $(host_kind) == hardware ]]; then options=(--native); fi
  if ((full)); then options+=(--fio 300 --full); fi
  run_guest_tests --bin "$repo_root/build/release" --out "$logs/guests" "${options[@]}" "$@"
  end_group
}

# start_guest_tests NAME ARGUMENT...: tests/guest/run in the background, for collect_guest_tests NAME.
declare -A guest_runs=()
start_guest_tests() {
  local name=$1
  shift
  : >"$work/$name.lines"
  "$repo_root/tests/guest/run" "$@" >"$work/$name.lines" </dev/null &
  guest_runs[$name]=$!
  cleanup_pids+=("$!")
}

# collect_guest_tests NAME: shows and counts its results as they come, to its end.
collect_guest_tests() {
  local pid=${guest_runs[$1]} status=0 before=$failed counted=$((passed + failed + skipped))
  count_lines < <(tail -f --pid="$pid" -n +1 "$work/$1.lines")
  wait "$pid" || status=$?
  if ((status == 124)); then fail "the suite" "it reached its time limit"
  elif ((status && failed == before)); then fail "the suite" "it ended with status $status"
  elif ((passed + failed + skipped == counted)); then fail "the suite" "no test ran"; fi
}

run_guest_tests() {
  start_guest_tests guests "$@"
  collect_guest_tests guests
}
