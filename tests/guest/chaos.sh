# shellcheck shell=bash disable=SC2154,SC2034
# Servers that are killed, stand still, forget or lie under a running Linux. Sourced by tests/guest/suite.
# Of the caller: RESTARTS (5), LIES ("sample", or "all").

group restarts 240 "the root disk's server is killed again and again under fio --verify, then stands still for 10 s" x86_64
test_restarts() {
  local disk cycles=${RESTARTS:-5} before
  next_disk disk && start_chaos_root --state "$group_dir/state" || return
  start_server other --memory 16M || return
  run_beside_fio "" --set "device.other.socket=$group_dir/other.sock" || return
  kill_again_and_again "$cycles" --state "$group_dir/state"
  before=$(other_disk_reads)
  kill -STOP "$root_pid"
  sleep 10
  check "the other disk is read while this one's server stands still" wait_until other_disk_is_read $((before + 2))
  kill -CONT "$root_pid"
  end_beside_fio
  matches "each time the server went on where the other one had stopped" "$(<"$group_dir/outboard.log")" \
    "device 'root': server ready, .*lost $cycles times, back $cycles times \($cycles resumed, 0 reset\)"
  matches "the other device was never lost" "$(<"$group_dir/outboard.log")" "device 'other': server ready$"
  is "the other disk was never misread" "$(grep -ca 'other disk BAD' "$group_dir/console.log")" 0
}
other_disk_reads() { grep -ca 'outboard-restarts: other disk read' "$group_dir/console.log"; }
other_disk_is_read() { (($(other_disk_reads) >= $1)); }

group forgets 240 "the root disk's server is killed under fio --verify and has no state: Linux resets the controller" x86_64
test_forgets() {
  local disk
  next_disk disk && start_chaos_root || return
  run_beside_fio "nvme_core.io_timeout=2 nvme_core.admin_timeout=10 outboard.forgets=yes" || return
  kill_again_and_again 2
  end_beside_fio
  matches "each time the device was reset" "$(<"$group_dir/outboard.log")" "back 2 times \(0 resumed, 2 reset\)"
}

# start_chaos_root [ARGUMENT...]: the server of the disk, again and again.
start_chaos_root() {
  start_server root --file "$disk" "$@" || return
  root_pid=$server_pid
}

# run_beside_fio KERNEL_OPTIONS [ARGUMENT...]: a machine in which fio verifies; returns when it does.
run_beside_fio() {
  local options=$1
  shift
  {
    printf '[machine]\nvcpus = 2\nmemory = "512M"\n[kernel]\npath = "vmlinuz"\n'
    printf 'cmdline = "console=ttyS0 quiet root=/dev/nvme0n1 rw panic=-1"\n'
    printf '[[device]]\nname = "root"\nsocket = "root.sock"\non_disconnect = "reconnect"\nreconnect = { hold = "9500ms" }\n'
    if [[ $* == *device.other* ]]; then printf '[[device]]\nname = "other"\nsocket = "other.sock"\n'; fi
  } >"$group_dir/machine.toml"
  mkfifo "$group_dir/typed"
  start_machine "$group_dir/machine.toml" --stats "$@" \
    --append "init=/outboard/restarts $options $guest_options" \
    <"$group_dir/typed" >"$group_dir/console.log" 2>"$group_dir/outboard.log" &
  machine_pid=$!
  exec {typed}>"$group_dir/typed"
  wait_until console_says "$machine_pid" 'outboard-restarts: begin'
  kill -0 "$machine_pid" 2>/dev/null && return
  not_ok "the machine starts" "$(tail -n 3 "$group_dir/outboard.log")"
  return 1
}

# kill_again_and_again CYCLES [ARGUMENT...]: the root disk's server, at random moments.
kill_again_and_again() {
  local cycles=$1 cycle began
  shift
  for ((cycle = 1; cycle <= cycles; cycle++)); do
    sleep "$((RANDOM % 2)).$((RANDOM % 9000 + 1000))"
    began=$EPOCHREALTIME
    kill -KILL "$root_pid"
    wait "$root_pid" 2>/dev/null
    forget_server "$root_pid"
    start_chaos_root "$@" || return
    note "killed $cycle: a server again after $(awk "BEGIN {printf \"%.0f\", ($EPOCHREALTIME - $began) * 1000}") ms"
    wait_until recovered "$cycle"
    # One that has forgotten is found out by the driver's own time-out.
    if [[ $* != *--state* ]]; then sleep 8; fi
  done
}
forget_server() { # forget_server PID: it is dead, and waited for
  local pid left=()
  for pid in "${server_pids[@]}"; do if [[ $pid != "$1" ]]; then left+=("$pid"); fi; done
  server_pids=("${left[@]}")
}
# The log is limited in its lines, so the machine is asked for its statistics.
recovered() {
  kill -0 "$machine_pid" 2>/dev/null || return 0
  kill -USR1 "$(pgrep -P "$machine_pid")" && sleep 0.5
  grep -q "device 'root': server ready, .*back $1 times" "$group_dir/outboard.log"
}

# What the guest has to say, how it ends, and whether its disk is whole.
end_beside_fio() {
  local before wanted
  (echo end >&"$typed")  # of its own: nobody may read any more, which is a signal
  exec {typed}>&-
  end_of "$machine_pid"
  rm -f "$group_dir/typed"
  before=$(grep -c . "$results")
  relay_results <"$group_dir/console.log"
  wanted=$(tr -d '\r' <"$group_dir/console.log" | sed -n 's/.*outboard-test: done \([0-9]*\).*/\1/p' | tail -n 1)
  is "the guest's tests ran to their end" "$(($(grep -c . "$results") - before)) results" "${wanted:-unknown} results"
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
  grep -a '    fio: ' "$group_dir/console.log" | tr -d '\r' | while IFS= read -r line; do note "${line#    }"; done
  grep -o "device 'root': server.*" "$group_dir/outboard.log" | tail -n 1 | while IFS= read -r line; do note "$line"; done
  stop_servers
  check "fsck finds nothing after the power-off" e2fsck -fn "$disk"
}

group lies 420 "the server of a second disk tells every lie of the conformance list; the root disk goes on" x86_64
test_lies() {
  local feed typed told=0 lies good failed
  if ! command -v outboard-liar >/dev/null; then skip "there is no outboard-liar beside the programs (tests/chaos builds it)"; return; fi
  root_on_disk || return
  truncate -s 16M "$group_dir/victim.img"
  mkfifo "$group_dir/liar.in" "$group_dir/typed"
  outboard-liar "$group_dir/victim.sock" 1000 "${LIES:-sample}" outboard-nvme --file "$group_dir/victim.img" \
    --state "$group_dir/victim.state" --doorbells trap --serial VICTIM <"$group_dir/liar.in" >"$group_dir/liar.log" 2>&1 &
  local liar_pid=$!
  exec {feed}>"$group_dir/liar.in"
  wait_until test -S "$group_dir/victim.sock"
  {
    printf '[machine]\nvcpus = 2\nmemory = "512M"\n[kernel]\npath = "vmlinuz"\n'
    printf 'cmdline = "console=ttyS0 quiet root=/dev/nvme0n1 rw panic=-1"\n'
    printf '[[device]]\nname = "root"\nsocket = "root.sock"\n[[device]]\nname = "victim"\nsocket = "victim.sock"\n'
    printf 'on_disconnect = "reconnect"\nreconnect = { last_delay = "50ms" }\n'
    printf 'timeouts = { access = "1s", dma = "1s", reset = "1s" }\n'
  } >"$group_dir/machine.toml"
  start_machine "$group_dir/machine.toml" --stats \
    --append "init=/outboard/lies iomem=relaxed nvme_core.io_timeout=4 nvme_core.admin_timeout=4 $guest_options" \
    <"$group_dir/typed" >"$group_dir/console.log" 2>"$group_dir/outboard.log" &
  local machine_pid=$!
  exec {typed}>"$group_dir/typed"
  wait_until console_says "$machine_pid" 'root disk good 2'
  lies=$(sed -n 's/^\([0-9]*\) lies$/\1/p' "$group_dir/liar.log")
  while ((told < lies)) && wait_until lie_told $((told + 1)); do
    told=$((told + 1))
    good=$(root_disk_good)
    wait_until root_disk_better $((good + 1))
    kill -0 "$machine_pid" 2>/dev/null || break
    (echo >&"$feed")  # of its own: nobody may read any more, which is a signal
  done
  is "every lie was told" "$told of ${lies:-0}" "${lies:-some} of ${lies:-0}"
  failed=$(grep -c '^FAILED' "$group_dir/liar.log")
  is "the machine did what it must after each" "$failed wrong: $(grep '^FAILED' "$group_dir/liar.log" | tr '\n' '|' | cut -c1-600)" "0 wrong: "
  good=$(root_disk_good)
  check "the root disk works on after the last" wait_until root_disk_better $((good + 2))
  (echo end >&"$typed")
  exec {feed}>&- {typed}>&-
  end_of "$machine_pid"
  local before wanted
  before=$(grep -c . "$results")
  relay_results <"$group_dir/console.log"
  wanted=$(tr -d '\r' <"$group_dir/console.log" | sed -n 's/.*outboard-test: done \([0-9]*\).*/\1/p' | tail -n 1)
  is "the guest's tests ran to their end" "$(($(grep -c . "$results") - before)) results" "${wanted:-unknown} results"
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
  wait "$liar_pid"
  grep '^wrong' "$group_dir/liar.log" | while IFS= read -r line; do note "$line"; done
  grep -o "device '[a-z]*': server.*" "$group_dir/outboard.log" | while IFS= read -r line; do note "$line"; done
  rm -f "$group_dir"/{liar.in,typed,victim.img,victim.sock,victim.sock.server}
  stop_servers
}
lie_told() { (($(grep -cE '^(told|FAILED)' "$group_dir/liar.log") >= $1)) || ! kill -0 "$machine_pid" 2>/dev/null; }
root_disk_good() { grep -ca 'outboard-lies: root disk good' "$group_dir/console.log"; }
root_disk_better() { (($(root_disk_good) >= $1)) || ! kill -0 "$machine_pid" 2>/dev/null; }
