# shellcheck shell=bash disable=SC2154
# The one list of Debian 12 packages, in groups by what needs them. Sourced, never run.
declare -gA package_groups=(
  [build]="g++ cmake ninja-build make pkg-config git ca-certificates ccache mold
    libexpected-dev libfdt-dev libcli11-dev libtomlplusplus-dev libspdlog-dev libfmt-dev
    nlohmann-json3-dev liburing-dev liblz4-dev libzstd-dev liblzma-dev zlib1g-dev libbz2-dev
    liblzo2-dev libseccomp-dev linux-libc-dev"
  [unit]="doctest-dev acpica-tools device-tree-compiler man-db socat"
  [lint]="clang-format clang-tidy shellcheck jq"
  [guest]="mmdebstrap debian-archive-keyring e2fsprogs fakeroot uidmap cpio busybox-static procps gzip kmod"
  [testbed]="qemu-system-x86 procps e2fsprogs"
  [guest-tests]="socat jq"
  [bench]="libbenchmark-dev"
  [fuzz]="clang libclang-rt-14-dev"
  [cross]="g++-aarch64-linux-gnu qemu-user"
  [testbed-arm64]="qemu-system-arm procps e2fsprogs xz-utils"
)
all_package_groups="build unit lint guest testbed guest-tests bench fuzz cross testbed-arm64"

# packages_of GROUP...: names, one a line, each once.
packages_of() {
  local group
  for group in "$@"; do
    [[ -n ${package_groups[$group]:-} ]] || usage_error "there is no package group '$group' (known: $all_package_groups)"
    # shellcheck disable=SC2086
    printf '%s\n' ${package_groups[$group]}
  done | sort -u
}

# missing_packages GROUP...: those of them that dpkg does not know as installed.
missing_packages() {
  local name
  while read -r name; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
  done < <(packages_of "$@")
}

# ensure_packages GROUP...: installs what is missing, asks nothing, uses no network if nothing is.
ensure_packages() {
  local missing runner=() names
  { command -v dpkg-query && command -v apt-get; } >/dev/null \
    || die "$kExitPackages" "this is no Debian system: there is no apt-get" "install by hand what these packages hold: $(packages_of "$@" | tr '\n' ' ')"
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  names="${missing[*]}"
  if ((EUID != 0)); then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      runner=(sudo -n)
    else
      say "${#missing[@]} Debian packages are missing and this user may not install them. Run as root:"
      printf '    apt-get update\n    apt-get install -y --no-install-recommends %s\n' "$names" >&2
      say "then run the same command again."
      exit "$kExitPackages"
    fi
  fi
  say "installing ${#missing[@]} Debian packages: $names"
  runner+=(env DEBIAN_FRONTEND=noninteractive)
  with_progress "apt-get update" "${runner[@]}" apt-get -q update \
    || die "$kExitPackages" "the package lists could not be read" "check the network and /etc/apt/sources.list"
  with_progress "apt-get install" "${runner[@]}" apt-get -q -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold install "${missing[@]}" \
    || die "$kExitPackages" "the packages could not be installed" "run 'apt-get install $names' to see why"
}
