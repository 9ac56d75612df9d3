# shellcheck shell=bash disable=SC2034
# What every tool here shares: messages, progress, clean-up, the cache. Sourced, never run.
#
# Exit statuses of all tools:
#   0 all is well              3 packages are missing and may not be installed from here
#   1 a test or command failed 4 a download or an image failed
#   2 wrong usage              124 time limit, 125 the emulated machine died, 130 interrupted
set -euo pipefail

kExitFailed=1
kExitUsage=2
kExitPackages=3
kExitCache=4
kExitMachineDied=125
export kExitFailed kExitUsage kExitPackages kExitCache kExitMachineDied

tool=${tool:-$(basename "$0")}
repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache_dir=${OUTBOARD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/outboard}

say() { printf '%s: %s\n' "$tool" "$*" >&2; }

# die STATUS MESSAGE [REMEDY]: one clear line, then the end.
die() {
  local status=$1 message=$2 remedy=${3:-}
  printf '%s: %s%s\n' "$tool" "$message" "${remedy:+; $remedy}" >&2
  exit "$status"
}

usage_error() { die "$kExitUsage" "$1" "see '$tool --help'"; }

# The comment block at the head of a script is its --help.
show_help() { sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p;}' "$0"; }

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo "$((t / 1000))"; }

seconds_since() { # seconds_since START_MS: "12.3"
  local ms=$(($(now_ms) - $1))
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# ---- clean-up -------------------------------------------------------------------------------
# Everything that must not outlive the tool: directories to remove, child processes to end.
cleanup_paths=()
cleanup_pids=()

cleanup() {
  local status=$? pid path
  trap '' INT TERM HUP
  trap - EXIT
  for pid in "${cleanup_pids[@]}"; do kill_tree "$pid"; done
  for path in "${cleanup_paths[@]}"; do [[ -n $path ]] && rm -rf -- "$path"; done
  exit "$status"
}

# Ends a process and all that it started, politely first.
kill_tree() {
  local pid=$1 child tries
  kill -0 "$pid" 2>/dev/null || return 0
  # shellcheck disable=SC2013
  for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill_tree "$child"; done
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((tries = 0; tries < 20; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

arm_cleanup() {
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

# new_temp_dir VARIABLE [PARENT]: a private directory that the clean-up removes.
new_temp_dir() {
  local -n temp_dir_out=$1
  temp_dir_out=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/outboard-$tool.XXXXXX")
  cleanup_paths+=("$temp_dir_out")
}

# ---- progress -------------------------------------------------------------------------------
# with_progress LABEL COMMAND...: runs it with its output in a log; shows that time passes; on
# failure shows the end of the log and returns the command's status. COMMAND may be a function; errexit
# does not hold in it (bash drops it under "||"), so its steps are chained with "&&" or "|| return".
with_progress() {
  local label=$1 log start pid status=0 shown=0 elapsed
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/outboard-log.XXXXXX")
  start=$(now_ms)
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  cleanup_pids+=("$pid")
  cleanup_paths+=("$log")
  while kill -0 "$pid" 2>/dev/null; do
    elapsed=$((($(now_ms) - start) / 1000))
    if [[ -t 2 ]] && ((elapsed >= 1)); then
      printf '\r%s: %s … %d s ' "$tool" "$label" "$elapsed" >&2
      shown=1
    elif ! [[ -t 2 ]] && ((elapsed >= shown * 15 + 2)); then
      printf '%s: %s … %d s\n' "$tool" "$label" "$elapsed" >&2
      shown=$((shown + 1))
    fi
    sleep 0.5
  done
  wait "$pid" || status=$?
  if [[ -t 2 ]] && ((shown)); then printf '\r\033[K' >&2; fi
  if ((status)); then
    say "$label failed after $(seconds_since "$start") s (status $status); the end of its output:"
    tail -n 25 "$log" | sed 's/^/    /' >&2
  else
    say "$label: $(seconds_since "$start") s"
  fi
  rm -f "$log"
  return "$status"
}

# ---- cache ----------------------------------------------------------------------------------
# content_key STRING|@FILE...: 16 hex digits of all that an artefact depends on.
content_key() {
  local item
  for item in "$@"; do
    if [[ $item == @* ]]; then sha256sum <"${item#@}"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

# cached VARIABLE NAME KEY LABEL FUNCTION [ARG...]: the directory of an artefact, made on first use by
# "FUNCTION DIR ARG..." under a temporary name and renamed when whole. Two runs at once wait for one
# another; a run that was killed leaves only a temporary name, which the next one removes.
cached() {
  local -n cached_out=$1
  local name=$2 key=$3 label=$4 lock
  shift 4
  local final=$cache_dir/$name-$key temp=$cache_dir/.making-$name-$key
  if ! [[ -d $final ]]; then
    mkdir -p "$cache_dir" || die "$kExitCache" "cannot create $cache_dir" "set OUTBOARD_CACHE to a writable directory"
    exec {lock}>"$cache_dir/.lock-$name-$key"
    flock -n "$lock" || { say "waiting for another run that makes $name"; flock "$lock"; }
    if ! [[ -d $final ]]; then
      rm -rf "$temp"
      mkdir "$temp"
      cleanup_paths+=("$temp")
      with_progress "$label" "$1" "$temp" "${@:2}" \
        || die "$kExitCache" "$name could not be made" "check the network and the output above, then run the same command again"
      mv -T "$temp" "$final"
    fi
    exec {lock}>&-
  fi
  touch "$final"
  # What an older recipe made and nothing used for two days.
  find "$cache_dir" -maxdepth 1 -name "$name-*" -mtime +2 -exec rm -rf {} + 2>/dev/null || true
  cached_out=$final
}
