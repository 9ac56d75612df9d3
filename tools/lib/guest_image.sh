# shellcheck shell=bash disable=SC2154
# Recipes of what guests boot: kernel, Debian root file system, busybox initrd. Sourced, never run.
# Each recipe's text is part of its cache key: a changed recipe is a new artefact.

debian_suite=bookworm
guest_packages=(
  # the guest's own
  systemd-sysv udev dbus fio nvme-cli pciutils e2fsprogs util-linux procps kmod iproute2 busybox-static
  # run-time libraries of the project's programs, for the machine between host and guest (L1)
  libfdt1 libspdlog1.10 libfmt9 liburing2 liblz4-1 libzstd1 liblzma5 zlib1g libbz2-1.0 liblzo2-2
  libseccomp2 libstdc++6 libgcc-s1 libasan8 libubsan1 libtsan2
  # its test tools
  jq socat strace python3-minimal
)

# ---- kernel: vmlinuz, config, modules/*.ko, version, tree/ for the guest's /usr --------------
# The guest gets the few modules that its user space asks for: the power button and its event device.
build_kernel() {
  local out=$1 package release
  cd "$out" || return 1
  package=$(apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null \
    | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
  if [[ -z $package ]]; then
    echo "apt knows no linux-image-cloud-amd64; run 'apt-get update' first"
    return 1
  fi
  apt-get -q -o APT::Sandbox::User=root download "$package" \
    && dpkg-deb -x ./*.deb tree \
    && dpkg-deb -f ./*.deb Package Version >version \
    && cp tree/boot/vmlinuz-* vmlinuz \
    && cp tree/boot/config-* config \
    && mkdir modules \
    && find tree/lib/modules \( -name 'kvm*.ko' -o -name irqbypass.ko -o -name 'virtio*.ko' \) -exec cp {} modules/ \; \
    && release=$(basename tree/lib/modules/*) && mkdir -p "usr/lib/modules/$release" \
    && find tree/lib/modules \( -name button.ko -o -name evdev.ko -o -name autofs4.ko \) \
      -exec cp {} "usr/lib/modules/$release/" \; \
    && cp tree/lib/modules/"$release"/modules.{builtin,order,builtin.modinfo} "usr/lib/modules/$release/" \
    && ln -s usr/lib lib && depmod -b "$PWD" "$release" \
    && rm -rf tree lib ./*.deb \
    && [[ -s vmlinuz && -s modules/kvm-amd.ko && -s usr/lib/modules/$release/modules.dep ]]
}

need_kernel() { # need_kernel VARIABLE
  local key
  key=$(content_key "$debian_suite" "$(declare -f build_kernel)")
  cached "$1" kernel "$key" "fetching Debian's cloud kernel" build_kernel
}

# ---- Debian root tree, as a tar archive -----------------------------------------------------
# The host's own Debian sources are used where they are of the right suite, so that a local mirror works.
apt_sources() {
  local found
  # shellcheck disable=SC2016
  found=$(apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 2>/dev/null \
    | awk -v suite="$debian_suite" '$1=="Packages" && $5=="Debian" && index($3, suite)==1 && $4=="main" {print "deb", $2, $3, $4}' \
    | sort -u)
  [[ -n $found ]] && printf '%s\n' "$found"
}

build_root_tree() {
  local out=$1 mode=root option options=() include
  ((EUID == 0)) || mode=unshare
  # Proxies that the host's apt uses hold for the new tree as well.
  while read -r option; do
    options+=("--aptopt=$option")
  done < <(apt-config dump | grep -E '^Acquire::(http|https)::Proxy ' || true)
  include=$(IFS=,; echo "${guest_packages[*]}")
  local sources=()  # none: mmdebstrap's own choice of a mirror
  if apt_sources >"$out/sources.list"; then sources=("$out/sources.list"); fi
  mmdebstrap --mode="$mode" --variant=apt --include="$include" "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook="$repo_root/tools/lib/customize_root" \
    "$debian_suite" "$out/root.tar" "${sources[@]}"
}

# ---- ext4 image of a tree: root.img ---------------------------------------------------------
image_from_tar() { # image_from_tar TAR IMAGE SIZE; runs as root or under fakeroot
  local tar=$1 image=$2 size=$3 tree=$2.tree
  mkdir "$tree" && tar -xf "$tar" -C "$tree" --numeric-owner && mke2fs -q -F -t ext4 -L outboard-root -E lazy_itable_init=0,root_owner=0:0 -d "$tree" "$image" "$size" \
    && rm -rf "$tree"
}

build_root_image() {
  local out=$1 wrapper=()
  build_root_tree "$out" || return 1
  ((EUID == 0)) || wrapper=(fakeroot --)
  "${wrapper[@]}" bash -euc "$(declare -f image_from_tar); image_from_tar \"\$@\"" image \
    "$out/root.tar" "$out/root.img" "$root_image_size" || return 1
  rm "$out/root.tar"
}
root_image_size=1536M

need_base_image() { # need_base_image VARIABLE
  local key
  key=$(content_key "$debian_suite" "${guest_packages[*]}" "$root_image_size" \
    "@$repo_root/tools/lib/customize_root" "$(declare -f build_root_tree build_root_image image_from_tar)")
  cached "$1" base-image "$key" "making a Debian root file system (about a minute)" build_root_image
}

# The guest's own scripts go into a copy of the base image, so that a changed script costs a second.
add_guest_scripts() {
  local out=$1 base=$2 kernel=$3 file
  shift 3
  cp --sparse=always --reflink=auto "$base/root.img" "$out/root.img" || return 1
  {
    for file in "$@"; do
      printf 'write %s /outboard/%s\nsif /outboard/%s mode 0100755\n' "$file" "${file##*/}" "${file##*/}"
    done
    cd "$kernel/usr/lib" || return 1
    find modules -type d -printf 'mkdir /usr/lib/%p\n'
    find modules -type f -printf "write $kernel/usr/lib/%p /usr/lib/%p\n"
  } >"$out/commands"
  debugfs -w -f "$out/commands" "$out/root.img" >"$out/log" 2>&1
  if grep -E 'No such|not found|failed|bad|allocate' "$out/log"; then return 1; fi
  rm "$out/commands" "$out/log"
  e2fsck -fn "$out/root.img"
}

need_root_image() { # need_root_image VARIABLE: a directory with root.img
  local base kernel
  need_kernel kernel
  need_base_image base
  need_scripted_image "$1" root-image "$base" "$kernel"
}

need_scripted_image() { # need_scripted_image VARIABLE NAME BASE KERNEL
  local scripts=("$repo_root"/tests/guest/in-guest/* "$repo_root/tools/lib/l1_init") key
  key=$(content_key "$3" "$4" "$(declare -f add_guest_scripts)" "${scripts[@]##*/}" "${scripts[@]/#/@}")
  cached "$1" "$2" "$key" "putting the test scripts into the root image" add_guest_scripts "$3" "$4" "${scripts[@]}"
}

# ---- busybox initrd -------------------------------------------------------------------------
build_initrd() { # build_initrd OUT INIT BUSYBOX [FOLDER]: the folder is in it by its name
  local out=$1 init=$2 busybox=$3 folder=${4:-} tree=$1/tree
  mkdir -p "$tree"/{bin,dev,proc,sys,mnt,tmp} && cp "$busybox" "$tree/bin/busybox" \
    && ln -s busybox "$tree/bin/sh" && cp "$init" "$tree/init" && chmod 755 "$tree/init" || return 1
  if [[ -n $folder ]]; then cp -r "$folder" "$tree/" || return 1; fi
  # The init itself opens /dev/console: the kernel mounts no devtmpfs over an initrd.
  local wrapper=()
  ((EUID == 0)) || wrapper=(fakeroot --)
  # shellcheck disable=SC2016
  "${wrapper[@]}" bash -euc 'cd "$1"; mknod -m 600 dev/console c 5 1; find . | cpio -o -H newc -R 0:0 --quiet | gzip -9n >"$2/initrd.img"' \
    initrd "$tree" "$out" || return 1
  rm -rf "$tree"
}

need_initrd() { # need_initrd VARIABLE: a directory with initrd.img
  need_busybox_initrd "$1" initrd /bin/busybox
}

need_busybox_initrd() { # need_busybox_initrd VARIABLE NAME BUSYBOX
  local key init=$repo_root/tests/guest/initrd-init
  key=$(content_key "$(declare -f build_initrd)" "@$init" "@$3")
  cached "$1" "$2" "$key" "making a busybox initrd" build_initrd "$init" "$3"
}
