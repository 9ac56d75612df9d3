#!/bin/sh
# Installs vfio_user/ as a package, builds the examples against it, and lets the one read the other.
#     test_installed.sh BUILD_DIRECTORY WORK_DIRECTORY [COMPILER_FLAGS]
set -eu

build=$1
work=$2
flags=${3:-}
examples=$(dirname "$(realpath "$0")")

rm -rf "$work"
mkdir -p "$work"
cmake --install "$build" --component vfio_user --prefix "$work/installed" > "$work/install.log"
cmake -S "$examples" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/installed" \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="$flags" > "$work/configure.log"
cmake --build "$work/build" > "$work/build.log"

mkfifo "$work/ready"
socket=$(mktemp -d)/device.sock
"$work/build/vfio_user_device" "$socket" > "$work/ready" &
device=$!
trap 'kill "$device" 2> /dev/null || true; rm -rf "$(dirname "$socket")"' EXIT
read -r line < "$work/ready"
echo "$line"

"$work/build/vfio_user_identify" "$socket" | tee "$work/identity"
grep -q '1b36:0001' "$work/identity"
grep -q 'class ff0000' "$work/identity"

kill "$device"
wait "$device"
test ! -e "$socket"
