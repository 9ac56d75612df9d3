# bash completion for outboard(1)
_outboard() {
  local current previous command word
  current="${COMP_WORDS[COMP_CWORD]}"
  previous="${COMP_WORDS[COMP_CWORD-1]}"
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in run|check|probe|dump) command="$word"; break ;; esac
  done
  case "$previous" in
    --kernel|--initrd|--boot-report|--trace) COMPREPLY=($(compgen -f -- "$current")); return ;;
    --out) COMPREPLY=($(compgen -d -- "$current")); return ;;
    --sandbox) COMPREPLY=($(compgen -W "on off" -- "$current")); return ;;
    --log-level) COMPREPLY=($(compgen -W "trace debug info warning error off" -- "$current")); return ;;
    --set) COMPREPLY=($(compgen -W "machine.vcpus= machine.memory= machine.page_size= machine.prefault= machine.kvm= machine.memory_fd= kernel.path= kernel.initrd= kernel.cmdline= kernel.entry= console.type= console.path= device.0.socket= device.0.server= device.0.dma= device.0.server_uid=" -- "$current")); return ;;
    --completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$current")); return ;;
  esac
  local config="--kernel --initrd --append --memory --vcpus --set --help"
  case "$command" in
    "") COMPREPLY=($(compgen -W "run check probe dump --help --version --log-level --completion" -- "$current")) ;;
    run) COMPREPLY=($(compgen -W "$config --stats --boot-report --trace --sandbox" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
    check) COMPREPLY=($(compgen -W "$config --schema" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
    probe) COMPREPLY=($(compgen -W "--json --timeout --help" -- "$current") $(compgen -f -- "$current")) ;;
    dump) COMPREPLY=($(compgen -W "acpi fdt cmdline $config --out" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
  esac
}
complete -o filenames -F _outboard outboard
