# shellcheck shell=bash disable=SC2154
# Debian packages of another architecture, fetched with an apt state of their own and unpacked without being
# installed: the host's dpkg neither sees nor changes (libfdt-dev:arm64, installed, would remove libfdt-dev:amd64).
# Sourced after guest_image.sh, never run.

foreign_arch=arm64
foreign_state=$cache_dir/apt-$foreign_arch
foreign_suite=''  # backports: only that suite, with a state of its own

foreign_apt() { APT_CONFIG=$foreign_state/apt.conf "$@"; }

# foreign_lists: package lists that are less than an hour old.
foreign_lists() {
  local lock
  mkdir -p "$foreign_state"/{state/lists/partial,cache/archives/partial} || return 1
  exec {lock}>"$foreign_state/lock"
  flock "$lock"
  if [[ -z $(find "$foreign_state/updated" -mmin -60 2>/dev/null) ]]; then
    : >"$foreign_state/status"
    foreign_sources >"$foreign_state/sources.list"
    {
      printf 'APT::Architecture "%s"; APT::Architectures { "%s"; };\n' "$foreign_arch" "$foreign_arch"
      printf 'APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
      printf 'Dir::State "%s/state"; Dir::State::status "%s/status"; Dir::Cache "%s/cache";\n' \
        "$foreign_state" "$foreign_state" "$foreign_state"
      printf 'Dir::Etc::Parts "/dev/null"; Dir::Etc::sourcelist "%s/sources.list"; Dir::Etc::sourceparts "-";\n' "$foreign_state"
      # Proxies and the like that the host's apt uses hold here as well.
      apt-config dump | grep -E '^Acquire::(http|https|Retries|ForceIP)' || true
    } >"$foreign_state/apt.conf"
    foreign_apt apt-get -q -o APT::Update::Error-Mode=any update && touch "$foreign_state/updated" || return 1
  fi
  exec {lock}>&-
}

foreign_sources() {
  local mirror=http://deb.debian.org uri
  if [[ $foreign_suite == backports ]]; then
    uri=$(apt_sources | awk -v suite="$debian_suite" '$3 == suite {print $2; exit}') || true
    printf 'deb %s %s-backports main\n' "${uri:-$mirror/debian}" "$debian_suite"
    return
  fi
  apt_sources && return
  printf 'deb %s/debian %s main\n' "$mirror" "$debian_suite"
  printf 'deb %s/debian-security %s-security main\n' "$mirror" "$debian_suite"
}

# fetch_foreign DIR PACKAGE...: these and all that they depend on, as DIR/*.deb.
fetch_foreign() {
  local out=$1
  shift
  mkdir -p "$out/partial" && foreign_lists \
    && foreign_apt apt-get -q -y --download-only -o Dir::Cache::archives="$out" install "$@" \
    && rm -rf "$out/partial" "$out/lock"
}

# unpack_foreign DEBS ROOT: their files, with /bin, /sbin and /lib as links into /usr, no maintainer script run.
unpack_foreign() {
  local debs=$1 root=$2 name deb
  mkdir -p "$root"/usr/{bin,sbin,lib} || return 1
  for name in bin sbin lib; do ln -s "usr/$name" "$root/$name" || return 1; done
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --numeric-owner \
      --exclude='./usr/share/'{doc,man,info,locale,lintian} || return 1
  done
}

# ---- sysroot of the cross-compiler ------------------------------------------------------------
# What the build and its tests need of the host, as arm64 packages, and the sanitizers' run-time libraries.
sysroot_packages() {
  printf '%s\n' libc6-dev libstdc++6 libasan8 libubsan1
  packages_of build unit | grep -e '-dev$'
}

build_sysroot() {
  local out=$1 link packages
  mapfile -t packages < <(sysroot_packages)
  fetch_foreign "$out/debs" "${packages[@]}" && unpack_foreign "$out/debs" "$out/root" && rm -r "$out/debs" || return 1
  # Links to absolute paths would lead to the host's files.
  find "$out/root" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
    ln -sfnr "$out/root$(readlink "$link")" "$link" || return 1
  done
  # A build folder sees that its headers are other ones.
  find "$out/root" -type f -exec touch -c {} +
  [[ -s $out/root/usr/include/libfdt.h && -s $out/root/usr/lib/aarch64-linux-gnu/libc.so.6 ]]
}

need_sysroot() { # need_sysroot VARIABLE: a directory with root/
  local key
  key=$(content_key "$debian_suite" "$(sysroot_packages)" "$(declare -f build_sysroot fetch_foreign unpack_foreign)")
  cached "$1" sysroot "$key" "fetching the arm64 libraries" build_sysroot
}

# link_sysroot VARIABLE: its path; tools/cmake/aarch64.cmake finds it through a link in the build folder.
link_sysroot() {
  local sysroot_dir=''
  local -n sysroot_out=$1
  need_sysroot sysroot_dir
  sysroot_out=$sysroot_dir/root
  mkdir -p "$repo_root/build" && ln -sfn "$sysroot_out" "$repo_root/build/sysroot-aarch64"
}
