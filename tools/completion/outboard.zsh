#compdef outboard
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
