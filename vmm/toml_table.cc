#include "vmm/toml_table.h"

#include <algorithm>
#include <filesystem>

#include <fmt/core.h>

#include "vfio_user/given_fds.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;

// The number of single-letter edits between two words: which known key did the user mean?
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  const auto best = std::min_element(known.begin(), known.end(), [&](auto& a, auto& b) {
    return distance(word, a) < distance(word, b);
  });
  if (best == known.end() || distance(word, *best) > std::max<std::size_t>(2, word.size() / 3))
    return {};
  return *best;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

}  // namespace

void TomlContext::fail(const toml::source_region& at, const std::string& path,
                       const std::string& what) {
  if (overridden.contains(path))
    errors.push_back(fmt::format("--set {}: {}", path, what));
  else if (at.begin.line == 0)
    errors.push_back(fmt::format("{}: {}", file, what));
  else
    errors.push_back(fmt::format("{}:{}:{}: {}", file, at.begin.line, at.begin.column, what));
}

TomlTable::TomlTable(TomlContext& context, const toml::table& table, std::string path)
    : context_(context), table_(table), path_(std::move(path)) {}

std::string TomlTable::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const toml::node* TomlTable::find(const std::string& key) {
  known_.push_back(key);
  return table_.get(key);
}

void TomlTable::fail(const std::string& key, const std::string& what) {
  const toml::node* node = table_.get(key);
  context_.fail(node != nullptr ? node->source() : table_.source(), path_of(key), what);
}

void TomlTable::wrong_type(const std::string& key, const toml::node& node,
                           std::string_view wanted) {
  fail(key, fmt::format("'{}' must be {}, not {}", path_of(key), wanted, type_name(node)));
}

void TomlTable::string(const std::string& key, std::string& out) {
  if (auto value = word(key)) out = std::move(*value);
}

void TomlTable::strings(const std::string& key, std::vector<std::string>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr) return wrong_type(key, *node, "an array of strings");
  out.clear();
  for (const toml::node& element : *array) {
    const auto value = element.value_exact<std::string>();
    if (!value) return wrong_type(key, element, "an array of strings");
    out.push_back(*value);
  }
}

void TomlTable::boolean(const std::string& key, bool& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  if (const auto value = node->value_exact<bool>())
    out = *value;
  else
    wrong_type(key, *node, "true or false");
}

std::optional<std::int64_t> TomlTable::number(const std::string& key, std::int64_t low,
                                              std::int64_t high) {
  const toml::node* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto value = node->value_exact<std::int64_t>();
  if (!value) {
    wrong_type(key, *node, "an integer");
    return std::nullopt;
  }
  if (*value < low || *value > high) {
    fail(key, fmt::format("'{}' is {}; it must be {} to {}", path_of(key), *value, low, high));
    return std::nullopt;
  }
  return *value;
}

void TomlTable::size(const std::string& key, std::uint64_t& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  if (const auto number = node->value_exact<std::int64_t>(); number && *number >= 0) {
    out = static_cast<std::uint64_t>(*number);
    return;
  }
  const auto text = node->value_exact<std::string>();
  if (!text) return wrong_type(key, *node, "a size such as \"512M\"");
  if (const auto bytes = parse_size(*text))
    out = *bytes;
  else
    fail(key, fmt::format("'{}' is \"{}\", which is no size; write it like \"512M\" or \"4G\"",
                          path_of(key), *text));
}

void TomlTable::address(const std::string& key, std::uint64_t& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto number = node->value_exact<std::int64_t>();
  const auto text = node->value_exact<std::string>();
  if (!text && !number) return wrong_type(key, *node, "an address such as \"0x100000000\"");
  if (const auto value = text ? parse_address(*text) : std::optional<std::uint64_t>(*number);
      value && (text || *number >= 0)) {
    out = *value;
    return;
  }
  fail(key,
       fmt::format("'{}' is no address; write it like \"0x100000000\" or \"4G\"", path_of(key)));
}

void TomlTable::duration(const std::string& key, std::chrono::milliseconds& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto text = node->value_exact<std::string>();
  if (!text) return wrong_type(key, *node, "a time such as \"5s\" or \"250ms\"");
  const auto time = parse_duration(*text);
  if (!time)
    return fail(key, fmt::format("'{}' is \"{}\", which is no time; write it like \"5s\" or "
                                 "\"250ms\"",
                                 path_of(key), *text));
  if (time->count() == 0) return fail(key, fmt::format("'{}' must not be zero", path_of(key)));
  out = *time;
}

void TomlTable::path(const std::string& key, std::string& out) {
  string(key, out);
  if (out.empty() || table_.get(key) == nullptr || vfio_user::is_given_fd(out)) return;
  const fs::path folder =
      context_.overridden.contains(path_of(key)) ? fs::current_path() : fs::path(context_.folder);
  out = (folder / out).lexically_normal().string();
}

void TomlTable::cpus(const std::string& key, const toml::array& array, std::vector<int>& out) {
  for (const toml::node& element : array) {
    const auto value = element.value_exact<std::int64_t>();
    if (!value || *value < 0 || *value > 8191)
      return fail(key, fmt::format("'{}' must hold host CPU numbers from 0", path_of(key)));
    out.push_back(static_cast<int>(*value));
  }
}

void TomlTable::cpus(const std::string& key, std::vector<int>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  if (node->as_array() == nullptr) return wrong_type(key, *node, "an array of host CPU numbers");
  cpus(key, *node->as_array(), out);
}

void TomlTable::cpu_lists(const std::string& key, std::vector<std::vector<int>>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const toml::array* lists = node->as_array();
  if (lists == nullptr)
    return wrong_type(key, *node, "an array with one array of host CPU numbers a vCPU");
  for (const toml::node& list : *lists) {
    if (list.as_array() == nullptr)
      return wrong_type(key, list, "an array with one array of host CPU numbers a vCPU");
    cpus(key, *list.as_array(), out.emplace_back());
  }
}

std::optional<std::string> TomlTable::word(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto text = node->value_exact<std::string>();
  if (text) return *text;
  wrong_type(key, *node, "a string");
  return std::nullopt;
}

void TomlTable::refuse_word(const std::string& key, const std::string& text,
                            std::vector<std::string> words) {
  for (auto& word : words) word = fmt::format("\"{}\"", word);
  fail(key, fmt::format("'{}' is \"{}\"; it must be one of {}", path_of(key), text, joined(words)));
}

const toml::table* TomlTable::inner_table(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return nullptr;
  if (node->as_table() == nullptr) wrong_type(key, *node, "a table");
  return node->as_table();
}

void TomlTable::finish() {
  for (const auto& [key, node] : table_) {
    const std::string name(key.str());
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    const std::string meant = nearest(name, known_);
    const std::string where = path_.empty() ? "" : fmt::format(" in [{}]", path_);
    context_.fail(
        key.source(), path_of(name),
        meant.empty()
            ? fmt::format("unknown key '{}'{}; known here: {}", name, where, joined(known_))
            : fmt::format("unknown key '{}'{}; did you mean '{}'?", name, where, meant));
  }
}

}  // namespace outboard::vmm
