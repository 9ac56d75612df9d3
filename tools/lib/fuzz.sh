# shellcheck shell=bash disable=SC2154
# The fuzz targets: their names, their build with clang, one run. Sourced by tools/fuzz and tools/test.

fuzz_build=$repo_root/build/fuzz
fuzz_found=$repo_root/build/fuzz-found
fuzz_kept=$cache_dir/fuzz-corpus

fuzz_targets() {
  local file
  for file in "$repo_root"/tests/fuzz/*_fuzz.cc; do basename "$file" _fuzz.cc; done
}
fuzz_corpus() { echo "$repo_root/tests/fuzz/corpus/$1"; }

configure_fuzz() {
  local options=()
  if command -v ccache >/dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
  if command -v mold >/dev/null; then options+=(-DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=mold); fi
  cmake -S "$repo_root" --preset fuzz "${options[@]}"
}

# build_fuzz_targets TARGET...: only what these need.
build_fuzz_targets() {
  local targets=("${@/#/fuzz_}")
  with_progress "configuring the fuzz targets (clang)" configure_fuzz \
    && with_progress "building $# fuzz targets" cmake --build "$fuzz_build" -j "$(nproc)" --target "${targets[@]}"
}

# fuzz_target TARGET SECONDS LOG: one run; what is new is kept in the cache, what fails in build/fuzz-found.
fuzz_target() {
  mkdir -p "$fuzz_kept/$1"
  run_fuzz_target "$@" "$fuzz_kept/$1" "$(fuzz_corpus "$1")"
}

# repeat_fuzz_target TARGET SECONDS LOG: the same from the corpus of the tree alone and from one seed, so that
# it says something of the tree, not of what earlier runs found nor of luck.
repeat_fuzz_target() {
  local new
  new=$(dirname "$3")/fuzz-$1.new
  rm -rf "$new"
  mkdir -p "$new"
  run_fuzz_target "$@" -seed=1 "$new" "$(fuzz_corpus "$1")"
}

run_fuzz_target() { # run_fuzz_target TARGET SECONDS LOG ARGUMENT...: its first folder takes what is new
  local target=$1 seconds=$2 log=$3 TIMEFORMAT='stat::processor_seconds: %U'
  shift 3
  mkdir -p "$fuzz_found"
  # A single input may take 25 s before it counts as hung: machines may be busy.
  {
    time ASAN_OPTIONS=detect_leaks=1 "$fuzz_build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=25 \
      -rss_limit_mb=3000 -print_funcs=0 -print_final_stats=1 -artifact_prefix="$fuzz_found/$target-" "$@" 2>&1 </dev/null
  } >"$log" 2>&1
}

# fuzz_summary TARGET LOG: target, executions, processor time, edges reached of all, inputs kept.
fuzz_summary() {
  awk -v name="$1" '
    /PC tables \(/ { match($0, /\([0-9]+ PCs/); all = substr($0, RSTART + 1, RLENGTH - 5) }
    match($0, /cov: [0-9]+/) { edges = substr($0, RSTART + 5, RLENGTH - 5) }
    match($0, /corp: [0-9]+/) { inputs = substr($0, RSTART + 6, RLENGTH - 6) }
    /^stat::number_of_executed_units:/ { runs = $2 }
    /^stat::processor_seconds:/ { time = $2 }
    END { printf "%-14s %12d %9d %10d of %5d %5d\n", name, runs, time, edges, all, inputs }' "$2"
}

# fuzz_failure LOG: the part of it that says what happened, and with which input.
fuzz_failure() {
  { grep -aE -A 14 'ERROR: |runtime error|deadly signal' "$1" | head -n 30
    grep -aE '^SUMMARY|Test unit written' "$1"; } | sed 's/^/    /'
}

# minimise_corpus TARGET: the corpus in the tree becomes the fewest inputs that reach all edges, of these at
# most 64, the largest; inputs with a name of their own stay, they were put there for a fault that was mended.
minimise_corpus() {
  local target=$1 corpus fresh
  corpus=$(fuzz_corpus "$target")
  new_temp_dir fresh
  mkdir -p "$fuzz_kept/$target"
  with_progress "minimising $target" "$fuzz_build/tests/fuzz/fuzz_$target" -set_cover_merge=1 -use_counters=0 \
    -max_len=4096 -print_funcs=0 "$fresh" "$corpus" "$fuzz_kept/$target" \
    || die "$kExitFailed" "the inputs of $target could not be merged"
  find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  find "$fresh" -type f -printf '%s %p\n' | sort -rn | head -n 64 | cut -d' ' -f2- | xargs -d '\n' cp -t "$corpus"
  say "$target: $(find "$corpus" -type f | wc -l) inputs"
}
