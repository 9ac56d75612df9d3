# shellcheck shell=bash disable=SC2154,SC2034
# The arm64 lane of tools/test: cross-compiled programs, under qemu-user and in the emulated arm64 machine.
# Sourced by tools/test after test_groups.sh.

arm64_tests='unit_vfio_user unit_box unit_boot unit_devices unit_vmm unit_nvme protocol cost'
arm64_missing='' arm64_16k_missing=''  # why the lane, or its part with pages of 16 KiB, cannot run

arm64_wanted() { wanted arm64-unit || wanted arm64-guests; }

# Packages, libraries and images; where they cannot be had, the lane is skipped, not the rest.
set_up_arm64() {
  local log=$work/arm64-set-up status=0
  if [[ $(uname -m) == aarch64 ]]; then
    arm64_missing="this host is arm64: the other groups are of that architecture"
    return
  fi
  (
    # shellcheck disable=SC2030
    local sysroot='' kernel='' root='' initrd=''
    ensure_packages cross testbed-arm64
    link_sysroot sysroot
    if wanted arm64-guests; then need_guest_images aarch64 kernel root initrd; fi
  ) 2> >(tee "$log" >&2) || status=$?
  if ((status)); then
    arm64_missing=$(last_word "$log" "$status")
  elif wanted arm64-guests; then
    # shellcheck disable=SC2030
    (local kernel='' && need_foreign_16k_kernel kernel) 2> >(tee "$log" >&2) || status=$?
    if ((status)); then arm64_16k_missing=$(last_word "$log" "$status"); fi
  fi
}

# last_word LOG STATUS: what the tool said last before it gave up.
last_word() {
  local said
  said=$(sed -n "s/^$tool: //p" "$1" | tail -n 1)
  echo "${said:-its set-up ended with status $2}"
}

arm64_can_run() { # arm64_can_run PRESET TITLE
  if [[ -n $arm64_missing ]]; then
    begin_group "$2"
    skip "$2" "$arm64_missing"
    end_group
    return 1
  fi
  have_build "$1" "$2"
}

build_arm64() {
  local targets
  [[ -z $arm64_missing ]] || return 0
  read -ra targets <<<"$arm64_tests"
  build_preset aarch64-plain "${targets[@]}" outboard-nvme micro
  if wanted arm64-guests; then build_preset aarch64 outboard outboard-nvme; fi
}

# What is left out here (tests/needs_kernel) runs with the guests.
group_arm64_unit() {
  local title="arm64: unit, protocol (qemu-user)"
  arm64_can_run aarch64-plain "$title" || return 0
  run_ctest aarch64-plain "$title" -R "^(${arm64_tests// /|})$"
}

# Beside the x86-64 guests: each of the emulated machines has one processor.
start_arm64_guests() {
  local options=()
  [[ -z $arm64_missing && -n ${built[aarch64]:-} ]] || return 0
  if ((full)); then options+=(--fio 300); fi
  start_guest_tests arm64-guests --arch aarch64 --bin "$repo_root/build/aarch64" \
    --programs "$repo_root/build/aarch64-plain" --out "$logs/arm64-guests" "${options[@]}"
}

group_arm64_guests() {
  local title="arm64: Linux guests"
  arm64_can_run aarch64 "$title" || return 0
  begin_group "$title"
  collect_guest_tests arm64-guests
  end_group
  title="arm64: a host with 16 KiB pages"
  begin_group "$title"
  if [[ -n $arm64_16k_missing ]]; then
    skip "$title" "$arm64_16k_missing"
  else
    run_guest_tests --arch aarch64 --pages 16k --bin "$repo_root/build/aarch64" --out "$logs/arm64-16k" first
  fi
  end_group
}
