# shellcheck shell=bash disable=SC2154,SC2034
# What is wrong before a guest runs: one clear line, the documented status, nothing left behind. These need
# /dev/kvm but no Linux guest, so they run on software KVM too. Sourced by tests/guest/suite.

# fails NAME STATUS PATTERN COMMAND...: ends with STATUS (a glob); a line of its stderr matches PATTERN.
fails() {
  local name=$1 wanted=$2 pattern=$3 status=0
  shift 3
  timeout 30 "$@" >"$group_dir/out.txt" 2>"$group_dir/err.txt" </dev/null || status=$?
  # shellcheck disable=SC2053
  if [[ $status != $wanted ]]; then
    not_ok "$name" "status $status, wanted $wanted: $(tail -n 2 "$group_dir/err.txt")"
  elif ! grep -qiE -- "$pattern" "$group_dir/err.txt"; then
    not_ok "$name" "no line matches '$pattern' in: $(head -c 400 "$group_dir/err.txt")"
  elif (($(grep -ciE 'error' "$group_dir/err.txt") > 1)); then
    not_ok "$name" "more than one line of error: $(head -c 400 "$group_dir/err.txt")"
  else
    ok "$name"
  fi
}

# foreign_sample FILE: what a kernel of the other architecture begins with.
foreign_sample() {
  truncate -s 1M "$1"
  case $guest_arch in
    x86_64) printf 'MZ' | at "$1" 0 && printf 'ARM\x64' | at "$1" 56 ;;
    aarch64) printf '\x55\xaaxxHdrS\x0f\x02' | at "$1" 510 && printf '\x04' | at "$1" 497 ;;
  esac
}
at() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

group errors 120 "bad input: one clear line, the documented status, nothing left behind"
test_errors() {
  local d=$group_dir long
  local boot=(outboard run "$CONFIGS/busybox.toml" --kernel "$GUEST_KERNEL" --initrd "$GUEST_INITRD")
  local root=(outboard run "$CONFIGS/quickstart.toml" --kernel "$GUEST_KERNEL")
  local started=(outboard run "$CONFIGS/debian.toml" --kernel "$GUEST_KERNEL")
  fails "no configuration file" 3 'absent.toml' outboard run "$d/absent.toml"
  fails "no such command" 2 . outboard frobnicate
  printf '[machine]\nmemmory = "1G"\n' >"$d/unknown.toml"
  fails "an unknown key is named with its place and the nearest" 3 "unknown.toml:2:1: .*memmory.*memory" outboard check "$d/unknown.toml"
  printf '[machine]\nvcpus = "two"\n' >"$d/type.toml"
  fails "a mistyped key is named with its place" 3 'type.toml:2:[0-9]+: .*vcpus' outboard check "$d/type.toml"
  fails "a kernel that is missing" 4 'absent-kernel' outboard run "$CONFIGS/busybox.toml" --kernel "$d/absent-kernel" --initrd "$GUEST_INITRD"
  head -c 100000 "$GUEST_KERNEL" >"$d/truncated"
  fails "a kernel that is truncated" 4 'truncated' outboard run "$CONFIGS/busybox.toml" --kernel "$d/truncated" --initrd "$GUEST_INITRD"
  head -c 100000 /dev/urandom >"$d/foreign"
  fails "a kernel that is none" 4 'foreign' outboard run "$CONFIGS/busybox.toml" --kernel "$d/foreign" --initrd "$GUEST_INITRD"
  local other=arm64
  if [[ $guest_arch == aarch64 ]]; then other=x86; fi
  foreign_sample "$d/other"
  fails "the header of an $other kernel" 4 "other.*$other" outboard run "$CONFIGS/busybox.toml" --kernel "$d/other" --initrd "$GUEST_INITRD"
  if [[ -s ${FOREIGN_KERNEL:-} ]]; then
    fails "Debian's $other kernel" 4 "foreign-kernel.*$other" outboard run "$CONFIGS/busybox.toml" --kernel "$FOREIGN_KERNEL" --initrd "$GUEST_INITRD"
  fi
  fails "an initrd that is missing" 4 'absent-initrd' outboard run "$CONFIGS/busybox.toml" --kernel "$GUEST_KERNEL" --initrd "$d/absent-initrd"
  fails "memory too small" '3' 'memory' "${boot[@]}" --memory 1M
  fails "a device's socket that is absent" 7 'absent.sock' "${root[@]}" --set "device.root.socket=$d/absent.sock"
  : >"$d/regular"
  fails "a socket that is a regular file" 7 'regular' "${root[@]}" --set "device.root.socket=$d/regular"
  long=$d/$(printf 'x%.0s' {1..120}).sock
  fails "a socket path over 107 bytes" '[37]' '107' "${root[@]}" --set "device.root.socket=$long"
  fails "a server that cannot be started" 7 'no-such-server' "${started[@]}" \
    --set 'device.root.server=["no-such-server", "--socket", "{socket}"]'
  fails "a server that ends at once" 7 'root.*ended with status 1' "${started[@]}" --set 'device.root.server=["false", "{socket}"]'
  fails "a server that speaks no vfio-user" 7 'root' "${started[@]}" --set 'device.root.timeouts={connect="2s",version="2s"}' \
    --set 'device.root.server=["socat", "UNIX-LISTEN:{socket}", "EXEC:yes"]'
  if unshare -m true 2>/dev/null; then
    # shellcheck disable=SC2016
    fails "no /dev/kvm" 5 '/dev/kvm' unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh "${boot[@]}"
    # Root reads everything, unless it is without the capability for that.
    # shellcheck disable=SC2016
    fails "no permission on /dev/kvm" 5 '/dev/kvm.*(permission|group|denied)' unshare -m sh -c \
      'mount -t tmpfs none /dev && mknod -m 0 /dev/kvm c 10 232 && exec "$@"' sh \
      setpriv --bounding-set -dac_override,-dac_read_search "${boot[@]}"
  else
    note "the tests of a missing /dev/kvm need root"
  fi
  fails "outboard-nvme: an image that is missing" 3 'absent.img' outboard-nvme --socket "$d/e.sock" --file "$d/absent.img"
  truncate -s 16M "$d/twice.img"
  if start_server twice --file "$d/twice.img"; then
    fails "outboard-nvme: an image that is being served" 3 'twice.img' outboard-nvme --socket "$d/e.sock" --file "$d/twice.img"
    fails "outboard-nvme: a socket that is in use" 4 'twice.sock' outboard-nvme --socket "$d/twice.sock" --memory 16M
    check "outboard probe reads the server's identity" outboard probe "$d/twice.sock"
  fi
  stop_servers
  is "no socket is left behind" "$(find "$d" -type s)" ""
  is "no process is left behind" "$(pgrep -lf -- "$d/")" ""
}
