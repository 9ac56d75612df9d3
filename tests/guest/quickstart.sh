#!/usr/bin/env bash
# Starts outboard-nvme on a root image, boots configs/quickstart.toml, shows what the guest shows and how
# long it took. Run by tools/quickstart, on the host or inside the testbed's machine.
# Environment: CONFIGS, GUEST_KERNEL, GUEST_DISKS, outboard and outboard-nvme in PATH.
set -uo pipefail
work=$(mktemp -d)
server=''
finish() {
  [[ -n $server ]] && kill "$server" 2>/dev/null && wait "$server"
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

shown() { printf '\nhost# %s\n' "$*"; }
shown outboard-nvme --socket root.sock --file root.img
outboard-nvme --socket "$work/root.sock" --file "${GUEST_DISKS%% *}" 2>"$work/server.log" </dev/null &
server=$!
until [[ -S $work/root.sock ]]; do
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
  sleep 0.02
done

command=(outboard run "$CONFIGS/quickstart.toml" --kernel "$GUEST_KERNEL" --set "device.root.socket=$work/root.sock"
  --append "init=/outboard/quickstart ${QUICKSTART_APPEND:-}" --stats)
shown outboard run configs/quickstart.toml --kernel vmlinuz --set device.root.socket=root.sock \
  --append init=/outboard/quickstart
start=$EPOCHREALTIME
milliseconds() { echo $(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000)); }
timeout -k 5 "${QUICKSTART_LIMIT:-120}" "${command[@]}" 2>"$work/outboard.log" </dev/null | while IFS= read -r line; do
  line=${line//$'\r'/}
  case $line in
    'quickstart: first read') milliseconds >"$work/first-read" ;;
    'quickstart: status '*) echo "${line##* }" >"$work/status" ;;
    *) printf '%s\n' "$line" ;;
  esac
done
status=${PIPESTATUS[0]}
if ((status)) || [[ $(cat "$work/status" 2>/dev/null) != 0 ]]; then
  echo "quickstart: the guest did not get to its end (outboard's status $status); its log:" >&2
  cat "$work/outboard.log" "$work/server.log" >&2
  exit 1
fi
printf '\nThe guest powered off; outboard ended with status 0. Times from process start:\n'
grep -E '^ *[0-9.]+ ms ' "$work/outboard.log"
printf '%10s ms  boot to I/O: the guest has read its first block in user space, seen on the console\n' "$(<"$work/first-read")"
