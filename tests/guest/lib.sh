# shellcheck shell=bash disable=SC2034
# The host's side of the Linux guest tests: boots machines, turns what they say into result lines.
# Sourced by tests/guest/suite, which runs natively or inside the testbed's machine.
#
# Given by the caller: CONFIGS (folder of the example machines), GUEST_KERNEL, GUEST_INITRD,
# GUEST_DISKS (root images that may be written to), OUT (logs), outboard and outboard-nvme in PATH; and, if
# wanted, GUEST_OPTIONS (more of the kernel's command line), FOREIGN_KERNEL (one of the other architecture),
# PROGRAMS and PROGRAMS_BUILT_IN (see programs.sh), GUEST_ARCH, LIMIT_FACTOR, FIO_SECONDS, VERBOSE.

guest_options="mitigations=off random.trust_cpu=on ${GUEST_OPTIONS:-}"
results=$OUT/results
group_name='' group_dir='' group_deadline=0
server_pids=()

# ---- results: "ok - NAME", "not ok - NAME: WHY", "ok - NAME # SKIP WHY" -----------------------
emit() { printf '%s\n' "$1" | tee -a "$results"; }
ok() { emit "ok - $group_name: $1"; }
not_ok() { emit "not ok - $group_name: $1: ${*:2}"; }
skip() { emit "ok - $group_name # SKIP $1"; }
is() { if [[ $2 == "$3" ]]; then ok "$1"; else not_ok "$1" "got '$2', wanted '$3'"; fi; }
check() { # check NAME COMMAND...
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "'$*' gave $?: ${output:0:300}"; fi
}
matches() { if grep -qE -- "$3" <<<"$2"; then ok "$1"; else not_ok "$1" "no line matches '$3' in: ${2:0:400}"; fi; }
note() { printf '# %s\n' "$*"; }

# Reads a console; shows the guest's results as they come, and with VERBOSE everything else.
relay_results() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    line=${line//$'\r'/}
    case $line in
      *'outboard-test: ok '*) ok "${line#*outboard-test: ok }" ;;
      *'outboard-test: not ok '*) emit "not ok - $group_name: ${line#*outboard-test: not ok }" ;;
      *) if [[ -n ${VERBOSE:-} ]]; then note "$SECONDS s: $line"; fi ;;
    esac
  done
}

# ---- time ------------------------------------------------------------------------------------
time_left() {
  local left=$((group_deadline - SECONDS))
  echo $((left > 1 ? left : 1))
}

# wait_until COMMAND...: polls until it succeeds or the group's time is over.
wait_until() {
  until "$@"; do
    ((SECONDS < group_deadline)) || return 1
    sleep 0.05
  done
}

# ---- servers and machines --------------------------------------------------------------------
# start_server NAME ARGUMENT...: outboard-nvme on $group_dir/NAME.sock.
start_server() {
  local name=$1
  shift
  outboard-nvme --socket "$group_dir/$name.sock" --stats "$@" >"$group_dir/$name.log" 2>&1 </dev/null &
  server_pid=$!
  server_pids+=("$server_pid")
  if ! wait_until server_is_up "$name" "$server_pid"; then
    not_ok "outboard-nvme ($name) starts" "$(tail -n 3 "$group_dir/$name.log")"
    return 1
  fi
}
server_is_up() { [[ -S $group_dir/$1.sock ]] || ! kill -0 "$2" 2>/dev/null; }

# Ends the servers in order and checks that they leave nothing behind.
stop_servers() {
  local pid status
  for pid in "${server_pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    if ((status == 137)); then continue; fi  # killed on purpose
    if ((status)); then not_ok "outboard-nvme ends in order on SIGTERM" "status $status"; fi
  done
  if ((${#server_pids[@]})); then is "no socket is left behind" "$(find "$group_dir" -type s)" ""; fi
  server_pids=()
}

# statistic NAME KEY: a number of the JSON line that a server leaves.
statistic() { grep '^{' "$group_dir/$1.log" | tail -n 1 | jq -r "$2"; }

# start_machine CONFIG ARGUMENT...: ends with the machine, in a process of its own (behind it '&' or '|'), which passes
# signals on. At the group's limit outboard says what it has counted, and has five seconds for that.
start_machine() {
  local config=$1
  shift
  exec timeout -s USR1 -k 5 "$(time_left)" outboard run "$config" --kernel "$GUEST_KERNEL" "$@"
}

# run_machine CONFIG ARGUMENT...: one machine from start to end; its status in $machine_status, its
# console in $group_dir/console.log.
run_machine() {
  local config=$1 wanted seen
  shift
  start_machine "$config" --stats "$@" 2>"$group_dir/outboard.log" </dev/null | tee "$group_dir/console.log" | relay_results
  machine_status=${PIPESTATUS[0]}
}

# test_boot SCRIPT CONFIG ARGUMENT...: boots it with /outboard/SCRIPT as first process, which tests and
# powers off; checks that it got to its end and how outboard ended. $boot_options are more kernel options.
test_boot() {
  local script=$1 config=$2 before counted wanted
  shift 2
  before=$(grep -c . "$results")
  run_machine "$CONFIGS/$config" --append "init=/outboard/$script $guest_options ${boot_options:-}" "$@"
  counted=$(($(grep -c . "$results") - before))
  wanted=$(sed -n 's/.*outboard-test: done \([0-9]*\).*/\1/p' "$group_dir/console.log" | tail -n 1)
  is "the guest's tests ran to their end" "$counted results" "${wanted:-unknown} results"
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
}

expect_status() {
  if ((machine_status == 124 || machine_status == 137)); then
    not_ok "$2" "the time limit was reached"
  else
    is "$2" "$machine_status" "$1"
  fi
}

# next_disk VARIABLE: a root image that no other test has written to.
next_disk() {
  local -n disk_out=$1
  disk_out=${disks[0]:-}
  disks=("${disks[@]:1}")
  [[ -n $disk_out ]] || { not_ok "a root disk is left" "the suite was given too few"; return 1; }
}

# ---- groups ----------------------------------------------------------------------------------
# group NAME LIMIT DESCRIPTION [ARCHITECTURE]: registers the function test_NAME, if need be for one architecture only.
guest_arch=${GUEST_ARCH:-$(uname -m)}
group_names=()
declare -A group_limits group_descriptions
group() {
  [[ ${4:-$guest_arch} == "$guest_arch" ]] || return 0
  group_names+=("$1")
  group_limits[$1]=$2
  group_descriptions[$1]=$3
}

run_group() {
  local before after start=$SECONDS
  group_name=$1
  group_dir=$OUT/$1
  group_deadline=$((SECONDS + group_limits[$1] * ${LIMIT_FACTOR:-1}))
  mkdir -p "$group_dir"
  note "$1: ${group_descriptions[$1]}"
  before=$(count_failures) || host_is_broken
  "test_$1"
  stop_servers
  after=$(count_failures) || host_is_broken
  note "$1 took $((SECONDS - start)) s"
  if ((after > before)); then show_logs; fi
}

count_failures() { sync "$results" && awk '/^not ok/ {n++} END {print n + 0}' "$results"; }

# The machine that the tests run on has lost its disk: results are missing, and what would follow says nothing.
host_is_broken() {
  printf 'not ok - %s: the host of the guests cannot read its own files any more\n' "$group_name"
  exit 1
}

show_logs() {
  local log
  for log in "$group_dir"/*.log; do
    [[ -s $log ]] || continue
    note "the end of ${log##*/}:"
    tail -n 30 "$log" | tr -cd '[:print:]\n\t' | cut -c1-200 | sed 's/^/#     /'
  done
}
