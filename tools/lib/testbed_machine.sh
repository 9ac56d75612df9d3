# shellcheck shell=bash disable=SC2154,SC2034,SC2054
# The emulated machines of tools/testbed, one an architecture. Sourced by it.

# choose_machine: what differs between the two: QEMU's program, the number of processors, and the serial line
# of COMMAND (`tty` inside; L1's console has its own).
choose_machine() {
  case $arch in
    x86_64) qemu_program=qemu-system-x86_64 tty=ttyS1 tty_device=(-serial chardev:tty) cpus=${cpus:-1} ;;
    aarch64) qemu_program=qemu-system-aarch64 tty=ttyS0 tty_device=(-device pci-serial,chardev=tty) cpus=${cpus:-2} ;;
    *) usage_error "--arch '$arch': x86_64 or aarch64" ;;
  esac
}

machine_x86_64() {
  # No XSAVE: emulated SVM does not intercept XSETBV, so KVM never learns the guest's XCR0 and puts its own into the
  # processor at each entry. The guest then saves its vector registers in another layout than it made room for.
  # A periodic tick (highres=off nohz=off): each #VMEXIT clears a bit of the processor's pending interrupts with a plain
  # read-modify-write, while QEMU's timer thread sets one there, which then is lost. A tick that must be programmed anew
  # each time is gone for good after that, and L1's processor runs its guest for minutes; a periodic one comes again.
  console=ttyS0
  options='no_timer_check tsc=nowatchdog highres=off nohz=off'
  machine=(-M q35 -cpu EPYC,+svm,+npt,-xsave)
}

machine_aarch64() {
  # `-cpu max` would be four times slower: its pointer authentication is computed in full.
  console=ttyAMA0
  options=''
  machine=(-M virt,virtualization=on,gic-version=3 -cpu neoverse-n1)
}

qemu_arguments() {
  local index=1 image console options
  "machine_$arch"
  machine+=(-m "$memory" -nodefaults -display none -no-reboot
    -kernel "$l1_dir/vmlinuz"
    -append "console=$console root=/dev/nvme0n1 rw init=/outboard/l1_init panic=-1 quiet loglevel=4 mitigations=off transparent_hugepage=never softlockup_panic=1 watchdog_thresh=60 random.trust_cpu=on $options"
    -serial "file:$work/console.log"
    -device nvme,id=disks,serial=outboard)
  if [[ -e $l1_dir/initrd.img ]]; then machine+=(-initrd "$l1_dir/initrd.img"); fi
  if ((steady)); then
    machine+=(-accel "tcg,thread=single" -icount "shift=1,sleep=off" -smp 1)
  else
    # Never room for one processor only: QEMU 7.2 then leaves the guest's memory barriers out, although its devices run
    # in a thread of their own. Linux writes the tail of a queue, then reads whether its NVMe controller wants to be told
    # (shadow doorbells); with these two the other way round it misses that, and after two time-outs the disk is dead.
    # Steady mode cannot be helped: keep what is read much in L1's memory.
    machine+=(-accel "tcg,thread=multi" -smp "cpus=$cpus,maxcpus=$((cpus > 1 ? cpus : 2))")
  fi
  add_disk "$root_dir/root.img" snapshot=on
  add_disk "$work/files.img" snapshot=on
  add_disk "$work/out.img" snapshot=off
  for image in "${disks[@]}"; do add_disk "$image" snapshot=on; done
}

add_disk() { # add_disk IMAGE snapshot=on|off: the next namespace of L1's NVMe controller
  machine+=(-drive "file=$1,if=none,id=d$index,format=raw,cache=unsafe,$2" -device "nvme-ns,drive=d$index,bus=disks,nsid=$index")
  index=$((index + 1))
}
