#include "vmm/completion.h"

namespace outboard::vmm {
namespace {

constexpr std::string_view kBash = R"SH(# bash completion for outboard(1)
_outboard() {
  local current previous command word
  current="${COMP_WORDS[COMP_CWORD]}"
  previous="${COMP_WORDS[COMP_CWORD-1]}"
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in run|check|probe|dump) command="$word"; break ;; esac
  done
  case "$previous" in
    --kernel|--initrd) COMPREPLY=($(compgen -f -- "$current")); return ;;
    --out) COMPREPLY=($(compgen -d -- "$current")); return ;;
    --log-level) COMPREPLY=($(compgen -W "trace debug info warning error off" -- "$current")); return ;;
    --set) COMPREPLY=($(compgen -W "machine.vcpus= machine.memory= machine.page_size= machine.prefault= kernel.path= kernel.initrd= kernel.cmdline= kernel.entry= console.type= console.path= device.0.socket= device.0.server=" -- "$current")); return ;;
    --completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$current")); return ;;
  esac
  local config="--kernel --initrd --append --memory --vcpus --set --help"
  case "$command" in
    "") COMPREPLY=($(compgen -W "run check probe dump --help --version --log-level --completion" -- "$current")) ;;
    run) COMPREPLY=($(compgen -W "$config --stats" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
    check) COMPREPLY=($(compgen -W "$config --schema" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
    probe) COMPREPLY=($(compgen -W "--json --timeout --help" -- "$current") $(compgen -f -- "$current")) ;;
    dump) COMPREPLY=($(compgen -W "acpi fdt cmdline $config --out" -- "$current") $(compgen -o plusdirs -f -X '!*.toml' -- "$current")) ;;
  esac
}
complete -o filenames -F _outboard outboard
)SH";

constexpr std::string_view kZsh = R"SH(#compdef outboard
_outboard_config=(
  '--kernel[kernel image]:file:_files' '--initrd[initial RAM disk]:file:_files'
  '--append[words added to the command line]:text:' '--memory[guest memory]:size:'
  '--vcpus[number of vCPUs]:number:' '*--set[override a key]:path=value:'
)
_outboard() {
  local context state line
  _arguments -C '--help[show help]' '--version[show the version]' \
    '--log-level[lowest level printed]:level:(trace debug info warning error off)' \
    '--completion[print a completion script]:shell:(bash zsh fish)' \
    '1:command:((run\:"boot a guest" check\:"validate a configuration" probe\:"describe a vfio-user server" dump\:"write the generated tables"))' \
    '*::argument:->rest'
  case "$words[1]" in
    run) _arguments $_outboard_config '--stats[print counters at the end]' '1:configuration:_files -g "*.toml"' ;;
    check) _arguments $_outboard_config '--schema[print every key]' '1:configuration:_files -g "*.toml"' ;;
    probe) _arguments '--json[machine-readable]' '--timeout[deadline of a request]:time:' '1:socket:_files' ;;
    dump) _arguments $_outboard_config '--out[folder]:folder:_files -/' '1:table:(acpi fdt cmdline)' '2:configuration:_files -g "*.toml"' ;;
  esac
}
_outboard "$@"
)SH";

constexpr std::string_view kFish = R"SH(# fish completion for outboard(1)
complete -c outboard -f
complete -c outboard -n __fish_use_subcommand -a run -d 'Boot a guest'
complete -c outboard -n __fish_use_subcommand -a check -d 'Validate a configuration'
complete -c outboard -n __fish_use_subcommand -a probe -d 'Describe a vfio-user server'
complete -c outboard -n __fish_use_subcommand -a dump -d 'Write the generated tables'
complete -c outboard -n __fish_use_subcommand -l version -d 'Show the version'
complete -c outboard -n __fish_use_subcommand -l completion -xa 'bash zsh fish'
complete -c outboard -l log-level -xa 'trace debug info warning error off'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -F
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l kernel -rF -d 'Kernel image'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l initrd -rF -d 'Initial RAM disk'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l append -x -d 'Words added to the command line'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l memory -x -d 'Guest memory'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l vcpus -x -d 'Number of vCPUs'
complete -c outboard -n '__fish_seen_subcommand_from run check dump' -l set -x -d 'Override a key: path=value'
complete -c outboard -n '__fish_seen_subcommand_from run' -l stats -d 'Print counters at the end'
complete -c outboard -n '__fish_seen_subcommand_from check' -l schema -d 'Print every key'
complete -c outboard -n '__fish_seen_subcommand_from probe' -F -l json -d 'Machine-readable'
complete -c outboard -n '__fish_seen_subcommand_from dump' -a 'acpi fdt cmdline'
complete -c outboard -n '__fish_seen_subcommand_from dump' -l out -rF -d 'Folder to write to'
)SH";

}  // namespace

std::string_view completion_script(std::string_view shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  if (shell == "fish") return kFish;
  return {};
}

}  // namespace outboard::vmm
