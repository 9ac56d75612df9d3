# bash completion for outboard-bench
_outboard_bench() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} word sub=
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in start | boot-to-io | access) sub=$word && break ;; esac
  done
  case $previous in
    --kernel | --disk | --qemu | --outboard | --outboard-nvme | --json | --html | --nvme-socket)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      compopt -o filenames
      return
      ;;
    --vs) mapfile -t COMPREPLY < <(compgen -W 'qemu cloud-hypervisor' -- "$current") && return ;;
    --machine) mapfile -t COMPREPLY < <(compgen -W 'q35 microvm' -- "$current") && return ;;
    --doorbells) mapfile -t COMPREPLY < <(compgen -W 'shadow page trap' -- "$current") && return ;;
    --clock) mapfile -t COMPREPLY < <(compgen -W 'auto server console' -- "$current") && return ;;
    --only) mapfile -t COMPREPLY < <(compgen -W 'all accesses nvme' -- "$current") && return ;;
    --modes) mapfile -t COMPREPLY < <(compgen -W 'page,shadow,trap page shadow trap none' -- "$current") && return ;;
    --rounds | --repetitions | --idle | --nvme-server | --label | --vmm-cpu | --server-cpu) return ;;
    --runs | --pairs | --limit | --memory | --devices | --append | --console-line | --patience) return ;;
  esac
  local runs='--runs --vs --pairs --machine --qemu --outboard --outboard-nvme --doorbells
    --unpack-each --drop-caches --limit --json --html --memory --kernel --append --help'
  case $sub in
    start) mapfile -t COMPREPLY < <(compgen -W "$runs --devices" -- "$current") ;;
    boot-to-io)
      mapfile -t COMPREPLY < <(compgen -W "$runs --disk --unpack --whole --clock --console-line --patience" -- "$current"
        compgen -f -X '!*.toml' -- "$current")
      ;;
    access)
      mapfile -t COMPREPLY < <(compgen -W '--outboard --outboard-nvme --only --rounds --repetitions --modes --idle
        --nvme-server --nvme-socket --label --shadow --vmm-cpu --server-cpu --unpinned --json --help' -- "$current")
      ;;
    *) mapfile -t COMPREPLY < <(compgen -W 'boot-to-io start access --help --version' -- "$current") ;;
  esac
}
complete -F _outboard_bench outboard-bench
