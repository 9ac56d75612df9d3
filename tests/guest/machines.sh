# shellcheck shell=bash disable=SC2154,SC2034
# The machines of configs/, and what Linux does in them. Sourced by tests/guest/suite.

# root_on_disk [ARGUMENT...]: an outboard-nvme that serves a fresh root image on root.sock.
root_on_disk() {
  local disk
  next_disk disk && start_server root --file "$disk" "$@"
}
root_socket() { printf 'device.root.socket=%s' "$group_dir/root.sock"; }

group busybox 60 "configs/busybox.toml: kernel and a busybox initrd, no device"
test_busybox() {
  run_machine "$CONFIGS/busybox.toml" --initrd "$GUEST_INITRD"
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
  matches "the initrd's init ran" "$(<"$group_dir/console.log")" 'outboard-initrd: 6\.'
  matches "it saw the host bridge" "$(<"$group_dir/console.log")" 'outboard-initrd: PCI 0000:00:00.0'
}

group bzimage 60 "the bzImage's own 64-bit entry instead of PVH" x86_64
test_bzimage() {
  run_machine "$CONFIGS/busybox.toml" --initrd "$GUEST_INITRD" --set kernel.entry=bzimage
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
  matches "the initrd's init ran" "$(<"$group_dir/console.log")" 'outboard-initrd: 6\.'
}

group first 120 "configs/quickstart.toml: root on NVMe, no initrd, one vCPU; doorbells in a buffer, the default"
test_first() {
  root_on_disk || return
  test_boot first quickstart.toml --set "$(root_socket)"
  stop_servers
  is "Linux set a doorbell buffer" "$(statistic root .admin.doorbell_buffer_config)" 1
  # What is left are the admin queue's, of some dozens of commands.
  check "its I/O doorbells were no messages" test "$(statistic root .doorbell_writes)" -lt "$(statistic root '.io.read / 4 | floor')"
  check "a sleeping server was woken by an ioeventfd" test "$(statistic root .doorbell_wakes)" -gt 0
  sed -n 's/\r//; /^    /p' "$group_dir/console.log" >"$group_dir/lspci.txt"
}

group smp 150 "configs/smp.toml: four vCPUs"
test_smp() {
  root_on_disk || return
  boot_options=outboard.cpus=4 test_boot smp smp.toml --set "$(root_socket)"
}

group memory 150 "configs/bigmem.toml: 6 GiB of sparse memory"
test_memory() {
  root_on_disk || return
  boot_options=outboard.memory=6144 test_boot memory bigmem.toml --set "$(root_socket)"
}

group hugepages 120 "configs/hugepages.toml: guest memory in 2 MiB pages"
test_hugepages() {
  local pool=/proc/sys/vm/nr_hugepages old
  old=$(<$pool)
  if (($(<$pool) < 256)); then
    echo 3 >/proc/sys/vm/drop_caches && echo 1 >/proc/sys/vm/compact_memory && echo 256 >$pool
  fi 2>/dev/null
  if (($(<$pool) < 256)); then
    skip "256 huge pages cannot be had here (run as root, with more memory)"
    return
  fi
  if root_on_disk; then
    boot_options=outboard.memory=512 test_boot memory hugepages.toml --set "$(root_socket)"
    is "all huge pages are given back" "$(awk '/HugePages_Free/ {print $2}' /proc/meminfo)" "$(<$pool)"
  fi
  echo "$old" >$pool
}

group spdk 120 "configs/spdk.toml, with outboard-nvme on its socket" x86_64
test_spdk() {
  root_on_disk || return
  test_boot hello spdk.toml --set "$(root_socket)"
}

group page 180 "--doorbells page: the doorbell page is mapped into the guest and looked at"
test_page() {
  root_on_disk --doorbells page || return
  test_boot hello quickstart.toml --set "$(root_socket)"
  stop_servers
  is "no doorbell was a message" "$(statistic root .doorbell_writes)" 0
  is "there was no doorbell buffer" "$(statistic root .admin.doorbell_buffer_config)" null
}

group trap 180 "--doorbells trap: every doorbell is a message"
test_trap() {
  root_on_disk --doorbells trap || return
  test_boot hello quickstart.toml --set "$(root_socket)"
  stop_servers
  # One may stand for several commands.
  check "its I/O doorbells were messages" test "$(statistic root .doorbell_writes)" -gt "$(statistic root '.io.read / 4 | floor')"
  is "there was no doorbell buffer" "$(statistic root .admin.doorbell_buffer_config)" null
}

group nvme 420 "configs/two-disks.toml: nvme-cli, mkfs, fsck and fio --verify"
test_nvme() {
  root_on_disk || return
  boot_options="outboard.fio_seconds=${FIO_SECONDS:-60}" test_boot nvme two-disks.toml --set "$(root_socket)"
}

group reboots 300 "five reboots from inside the guest, one process and one connection"
test_reboots() {
  root_on_disk || return
  test_boot reboots quickstart.toml --set "$(root_socket)"
  is "the guest booted six times" "$(grep -c 'outboard-reboots: boot' "$group_dir/console.log")" 6
  stop_servers
  is "the device was reset once a reboot" "$(statistic root .resets)" 5
  is "over one connection" "$(statistic root .connections)" 1
}

group debian 300 "configs/debian.toml: systemd to a login prompt; SIGTERM presses the power button" x86_64
test_debian() {
  local disk pid
  next_disk disk || return
  outboard run "$CONFIGS/debian.toml" --kernel "$GUEST_KERNEL" --append "$guest_options" \
    --set "device.root.server=[\"outboard-nvme\", \"--socket\", \"{socket}\", \"--file\", \"$disk\"]" \
    >"$group_dir/console.log" 2>"$group_dir/outboard.log" </dev/null &
  pid=$!
  if wait_until console_says "$pid" 'login: '; then
    ok "systemd reaches a login prompt"
  else
    not_ok "systemd reaches a login prompt" "it was not seen in time"
  fi
  if wait_until console_says "$pid" 'root@outboard-guest'; then
    ok "root is logged in on the console"
  else
    not_ok "root is logged in on the console" "no shell prompt was seen"
  fi
  kill -TERM "$pid"
  end_of "$pid"
  expect_status 0 "SIGTERM presses the power button and systemd powers off"
  matches "the guest shut down in order" "$(<"$group_dir/console.log")" 'reboot: Power down|Reached target.*(Power-Off|System Power Off)'
  is "the server was stopped with the machine" "$(pgrep -cf "outboard-nvme.*$disk")" 0
}
console_says() { grep -qa -- "$2" "$group_dir/console.log" || ! kill -0 "$1" 2>/dev/null; }

# end_of PID: waits for it, at most until the group's deadline; its status in $machine_status.
end_of() {
  local pid=$1
  machine_status=0
  if wait_until eval "! kill -0 $pid 2>/dev/null"; then
    wait "$pid" || machine_status=$?
  else
    pkill -KILL -P "$pid"  # what runs under timeout
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    machine_status=124
  fi
}

group console 240 "64 KiB through the console in each direction, byte for byte"
test_console() {
  root_on_disk || return
  # Every byte value, in an order that a lost or doubled byte disturbs.
  head -c 65536 /dev/urandom >"$group_dir/sent"
  mkfifo "$group_dir/input"
  start_machine "$CONFIGS/quickstart.toml" \
    --set "$(root_socket)" --append "init=/outboard/console $guest_options" \
    <"$group_dir/input" >"$group_dir/console.log" 2>"$group_dir/outboard.log" &
  local pid=$! start
  exec {feed}>"$group_dir/input"
  wait_until console_says "$pid" 'outboard-console: ready'
  cat "$group_dir/sent" >&"$feed"
  exec {feed}>&-
  end_of "$pid"
  expect_status 0 "outboard ends with status 0 after the guest's power-off"
  matches "the guest got every byte" "$(grep -a 'outboard-console: got' "$group_dir/console.log")" \
    "got 65536 $(sha256sum <"$group_dir/sent" | cut -c1-64)"
  start=$(grep -abo 'outboard-console: begin' "$group_dir/console.log" | head -n 1 | cut -d: -f1)
  # The line ends with CR LF: the terminal of the guest was raw, its console's newline is not.
  tail -c +$((${start:-0} + 1)) "$group_dir/console.log" | tail -n +2 | head -c 65536 >"$group_dir/received"
  check "every byte came back" cmp "$group_dir/sent" "$group_dir/received"
  rm -f "$group_dir/input"
}

group killed 120 "the server is killed under a running guest"
test_killed() {
  root_on_disk || return
  start_machine "$CONFIGS/quickstart.toml" \
    --set "$(root_socket)" --set device.root.on_disconnect=stop --append "init=/outboard/wait $guest_options" \
    >"$group_dir/console.log" 2>"$group_dir/outboard.log" </dev/null &
  local pid=$!
  wait_until console_says "$pid" 'outboard-wait: up'
  kill -KILL "$server_pid"
  end_of "$pid"
  expect_status 8 "with on_disconnect = stop outboard ends with status 8"
  matches "the log names the device" "$(<"$group_dir/outboard.log")" 'root'
  rm -f "$group_dir/root.sock"
}

group interrupt 120 "a second SIGTERM ends a guest that does not answer the power button"
test_interrupt() {
  root_on_disk || return
  start_machine "$CONFIGS/quickstart.toml" \
    --set "$(root_socket)" --append "init=/outboard/wait $guest_options" \
    >"$group_dir/console.log" 2>"$group_dir/outboard.log" </dev/null &
  local timeout_pid=$! pid
  wait_until console_says "$timeout_pid" 'outboard-wait: up'
  pid=$(pgrep -P "$timeout_pid")
  kill -TERM "$pid"
  sleep 1
  check "one SIGTERM leaves the guest time to answer" kill -0 "$pid"
  kill -TERM "$pid"
  end_of "$timeout_pid"
  expect_status 143 "the second one ends outboard with status 128 + 15"
}
