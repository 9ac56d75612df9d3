# bash completion for outboard-nvme
_outboard_nvme() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  case $previous in
    --socket | --file | --state)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      compopt -o filenames
      return
      ;;
    --doorbells)
      mapfile -t COMPREPLY < <(compgen -W 'shadow page trap' -- "$current")
      return
      ;;
    --sandbox)
      mapfile -t COMPREPLY < <(compgen -W 'on off' -- "$current")
      return
      ;;
    --block-size)
      mapfile -t COMPREPLY < <(compgen -W '512 4096' -- "$current")
      return
      ;;
    --namespace)
      mapfile -t COMPREPLY < <(compgen -W 'file= memory= null=' -- "$current")
      compopt -o nospace
      return
      ;;
    --memory | --null | --queues | --serial | --ready-fd | --first-read-fd) return ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W '--socket --file --memory --null --namespace --block-size
    --read-only --queues --doorbells --serial --state --sandbox --threads --stats --once --ready-fd --first-read-fd
    --help --version' -- "$current")
}
complete -F _outboard_nvme outboard-nvme
