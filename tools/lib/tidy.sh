# shellcheck shell=bash disable=SC2154
# clang-tidy over the sources of a build folder, each file once for each content. Sourced by tools/test.
# What a result depends on: the source, the project's headers that it includes (as the build recorded them),
# its flags, .clang-tidy and the version of clang-tidy.

# tidy_database BUILD: the compile database of the build without its precompiled headers, which are another
# compiler's and which clang refuses; in a folder of its own, as clang-tidy wants it.
tidy_database() {
  mkdir -p "$1/tidy"
  jq 'map(.command |= gsub(" (-fpch-preprocess|-Winvalid-pch|-include [^ ]*/cmake_pch\\.hxx)(?= )"; ""))' \
    "$1/compile_commands.json" >"$1/tidy/compile_commands.json"
}

# tidy_list BUILD: "KEY FILE" of each source of the product (not of its tests) in the compile database.
tidy_list() {
  local build=$1 common file object headers command
  common=$(content_key "@$repo_root/.clang-tidy" "$(clang-tidy --version)")
  declare -A headers_of=()
  while IFS= read -r line; do
    case $line in
      *': #deps '*) object=${line%%: #deps*} ;;
      '    '*)
        file=$(cd "$build" && realpath -qm "${line#    }")
        if [[ $file == "$repo_root"/* && $file != "$build"/* ]]; then headers_of[$object]+="$file"$'\n'; fi
        ;;
    esac
  done < <(ninja -C "$build" -t deps 2>/dev/null | grep -E ': #deps |^    (\.\./|'"$repo_root"')')
  while IFS=$'\t' read -r file object command; do
    [[ $file == "$repo_root"/* && $file != "$build"/* && $file != "$repo_root"/tests/* ]] || continue
    object=${object#"$build"/}
    headers=$(tr '\n' '\0' <<<"${headers_of[$object]:-$file}" | sed -z '/^$/d' | sort -zu | xargs -0 sha256sum)
    printf '%s %s\n' "$(content_key "$common" "$command" "$headers")" "$file"
  done < <(jq -r '.[] | [.file, (.output // ""), .command] | @tsv' "$build/tidy/compile_commands.json" | grep -v '\.S'$'\t')
}

# tidy_one BUILD KEY FILE: prints what clang-tidy says; remembers a clean file.
tidy_one() {
  local log
  log=$(mktemp)
  if clang-tidy --quiet -p "$1/tidy" --extra-arg=-Wno-unknown-warning-option "$3" >"$log" 2>/dev/null; then
    touch "$tidy_cache/tidy-$2"
    echo "ok ${3#"$repo_root"/}"
  else
    echo "not ok ${3#"$repo_root"/}"
    { grep -E 'error|warning' "$log" | sed "s|$repo_root/||" | head -n 20; } || true
  fi
  rm -f "$log"
}

# run_tidy BUILD JOBS: clang-tidy of what changed; 0 when all files are clean.
run_tidy() {
  local build=$1 jobs=$2 key file count=0 todo=() log
  tidy_cache=$cache_dir
  export tidy_cache repo_root
  export -f tidy_one
  mkdir -p "$cache_dir"
  tidy_database "$build"
  while read -r key file; do
    count=$((count + 1))
    if [[ -e $cache_dir/tidy-$key ]]; then touch "$cache_dir/tidy-$key"; else todo+=("$key" "$file"); fi
  done < <(tidy_list "$build")
  echo "$count files, $((${#todo[@]} / 2)) of them new or changed"
  ((count)) || return 1
  ((${#todo[@]})) || return 0
  log=$(mktemp)
  printf '%s\0' "${todo[@]}" | nice -n 19 xargs -0 -n 2 -P "$jobs" bash -c 'tidy_one "$0" "$@"' "$build" | tee "$log"
  find "$cache_dir" -maxdepth 1 -name 'tidy-*' -mtime +14 -delete
  if grep -q '^not ok' "$log"; then rm -f "$log"; return 1; fi
  rm -f "$log"
}
