# shellcheck shell=bash disable=SC2154
# Recipes of what arm64 guests boot, and of the arm64 machine between them and the host (L1): kernel, root file
# system, initrd. The packages are unpacked and no maintainer script runs, so that nothing needs to execute arm64
# programs here. Sourced after guest_image.sh and foreign_packages.sh, never run.

# What the guest tests use, and the libraries of the project's test programs. No systemd: a script is the first process.
foreign_guest_packages=(
  bash coreutils util-linux mount procps e2fsprogs grep sed mawk findutils diffutils gzip libc-bin base-files base-passwd
  perl-base kmod pciutils nvme-cli fio jq socat strace busybox-static device-tree-compiler
  libfdt1 libspdlog1.10 libfmt9 liburing2 liblz4-1 libzstd1 liblzma5 zlib1g libbz2-1.0 liblzo2-2
  libseccomp2 libstdc++6 libgcc-s1 libasan8 libubsan1 libtsan2
)
foreign_root_size=768M

# ---- kernel: vmlinuz (an Image), config, version, usr/lib/modules. All that a guest needs is built in.
build_foreign_kernel() {
  local out=$1 package release
  foreign_lists && cd "$out" || return 1
  package=$(foreign_apt apt-cache show --no-all-versions linux-image-cloud-arm64 | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
  [[ -n $package ]] || { echo "there is no linux-image-cloud-arm64"; return 1; }
  foreign_apt apt-get -q download "$package" \
    && dpkg-deb -x ./*.deb tree \
    && dpkg-deb -f ./*.deb Package Version >version \
    && cp tree/boot/vmlinuz-* vmlinuz \
    && cp tree/boot/config-* config \
    && mkdir modules \
    && release=$(basename tree/lib/modules/*) && mkdir -p "usr/lib/modules/$release" \
    && cp tree/lib/modules/"$release"/modules.{builtin,order,builtin.modinfo} "usr/lib/modules/$release/" \
    && ln -s usr/lib lib && depmod -b "$PWD" "$release" \
    && rm -rf tree lib ./*.deb \
    && [[ -s vmlinuz && -e usr/lib/modules/$release/modules.dep ]]
}

# ---- kernel of an L1 with pages of 16 KiB: vmlinuz and initrd.img --------------------------------
# It is Debian's general kernel, whose drivers are modules: an initrd loads those of the root disk.
build_foreign_16k_kernel() {
  local out=$1 busybox=$2 init=$3 package release module driver order=10
  # shellcheck disable=SC2034
  local foreign_state=$foreign_state-backports foreign_suite=backports
  foreign_lists && cd "$out" || return 1
  package=$(foreign_apt apt-cache show --no-all-versions linux-image-arm64-16k | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
  [[ -n $package ]] || { echo "there is no linux-image-arm64-16k"; return 1; }
  foreign_apt apt-get -q download "$package" \
    && dpkg-deb -f ./*.deb Package Version >version \
    && dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './boot/*' './lib/modules/*/modules.*' './lib/modules/*/kernel/drivers/nvme/*' \
      './lib/modules/*/kernel/fs/*' './lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' \
    && cp boot/vmlinuz-* vmlinuz && release=$(basename lib/modules/*) && depmod -b "$PWD" "$release" && mkdir modules || return 1
  for module in $(for driver in nvme ext4; do modprobe --show-depends -d "$PWD" -S "$release" "$driver"; done | awk '{print $2}'); do
    xz -dc "$module" >"modules/$order-$(basename "$module" .ko.xz).ko" || return 1
    order=$((order + 1))
  done
  build_initrd "$out" "$init" "$busybox" modules && rm -rf boot lib modules ./*.deb && [[ -s vmlinuz && -s initrd.img ]]
}

# ---- root image ----------------------------------------------------------------------------------
finish_foreign_root() { # finish_foreign_root ROOT: what maintainer scripts would have done, as far as it matters
  local root=$1
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  echo outboard-guest >"$root/etc/hostname"
  printf '127.0.0.1 localhost outboard-guest\n' >"$root/etc/hosts"
  ln -s mawk "$root/usr/bin/awk"
  ln -s bash "$root/usr/bin/sh"
  mkdir -p "$root/outboard" "$root/files" "$root/mnt/out" "$root/dev" "$root/proc" "$root/sys" "$root/run"
  # The kernel has no DEVTMPFS_MOUNT: it starts init with nothing but these.
  mknod -m 600 "$root/dev/console" c 5 1
  mknod -m 666 "$root/dev/null" c 1 3
}

foreign_root_image() { # foreign_root_image DEBS ROOT IMAGE SIZE; runs as root or under fakeroot
  unpack_foreign "$1" "$2" && finish_foreign_root "$2" \
    && mke2fs -q -F -t ext4 -L outboard-root -E lazy_itable_init=0,root_owner=0:0 -d "$2" "$3" "$4"
}

build_foreign_root_image() {
  local out=$1 wrapper=()
  ((EUID == 0)) || wrapper=(fakeroot --)
  fetch_foreign "$out/debs" "${foreign_guest_packages[@]}" || return 1
  "${wrapper[@]}" bash -euc "$(declare -f unpack_foreign finish_foreign_root foreign_root_image); foreign_root_image \"\$@\"" image \
    "$out/debs" "$out/root" "$out/root.img" "$foreign_root_size" || return 1
  cp "$out/root/usr/bin/busybox" "$out/busybox" && rm -rf "$out/debs" "$out/root"
}

# ---- what tools call -------------------------------------------------------------------------------
need_foreign_kernel() { # need_foreign_kernel VARIABLE: a directory with vmlinuz
  cached "$1" kernel-arm64 "$(content_key "$debian_suite" "$(declare -f build_foreign_kernel)")" \
    "fetching Debian's arm64 cloud kernel" build_foreign_kernel
}

need_foreign_16k_kernel() { # need_foreign_16k_kernel VARIABLE: a directory with vmlinuz and initrd.img
  local base key init=$repo_root/tools/lib/l1_initrd_init
  need_foreign_base_image base
  key=$(content_key "$debian_suite" "$base" "@$init" "$(declare -f build_foreign_16k_kernel build_initrd)")
  cached "$1" kernel-arm64-16k "$key" "fetching Debian's arm64 kernel with pages of 16 KiB" \
    build_foreign_16k_kernel "$base/busybox" "$init"
}

need_foreign_base_image() { # need_foreign_base_image VARIABLE: a directory with root.img and busybox
  local key
  key=$(content_key "$debian_suite" "${foreign_guest_packages[*]}" "$foreign_root_size" \
    "$(declare -f fetch_foreign unpack_foreign finish_foreign_root foreign_root_image build_foreign_root_image)")
  cached "$1" base-image-arm64 "$key" "making an arm64 root file system" build_foreign_root_image
}

need_foreign_root_image() { # need_foreign_root_image VARIABLE: a directory with root.img
  local base kernel
  need_foreign_kernel kernel
  need_foreign_base_image base
  need_scripted_image "$1" root-image-arm64 "$base" "$kernel"
}

need_foreign_initrd() { # need_foreign_initrd VARIABLE: a directory with initrd.img
  local base
  need_foreign_base_image base
  need_busybox_initrd "$1" initrd-arm64 "$base/busybox"
}

# testbed_packages ARCH: the group of packages (packages.sh) that its emulated machine needs.
testbed_packages() { if [[ $1 == aarch64 ]]; then echo testbed-arm64; else echo testbed; fi; }

# need_guest_images ARCH KERNEL ROOT INITRD: all that a guest of the architecture boots, into these variables.
need_guest_images() {
  case $1 in
    x86_64) need_kernel "$2" && need_root_image "$3" && need_initrd "$4" ;;
    aarch64) need_foreign_kernel "$2" && need_foreign_root_image "$3" && need_foreign_initrd "$4" ;;
  esac
}
