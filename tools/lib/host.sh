# shellcheck shell=bash
# What kind of host this is, for guests. Sourced, never run.

# hardware: a stock Linux guest runs on /dev/kvm. software: /dev/kvm is a paravirtual one that interprets
# guest kernels and lacks instructions that stock ones use. forbidden: it is there but not for this user.
# none: there is none. The CPU's flags predict only whether a stock kernel runs, not whether KVM may be used.
host_kind() {
  if ! [[ -e /dev/kvm ]]; then echo none
  elif ! { : <>/dev/kvm; } 2>/dev/null; then echo forbidden
  elif grep -qwE 'svm|vmx' /proc/cpuinfo || [[ $(uname -m) != x86_64 ]]; then echo hardware
  else echo software
  fi
}

# host_sentence [ARCH]: where guests of that architecture run.
host_sentence() {
  if [[ ${1:-$(uname -m)} != "$(uname -m)" ]]; then echo "this host is $(uname -m): $1 guests run through tools/testbed"; return; fi
  case $(host_kind) in
    hardware) echo "Linux guests run on this host's hardware KVM" ;;
    software) echo "/dev/kvm is here but without SVM or VMX (software KVM): Linux guests run through tools/testbed" ;;
    forbidden) echo "this user may not open /dev/kvm (add it to the group 'kvm'): Linux guests run through tools/testbed" ;;
    none) echo "there is no /dev/kvm: Linux guests run through tools/testbed" ;;
  esac
}
