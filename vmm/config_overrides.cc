#include "vmm/config_overrides.h"

#include <algorithm>
#include <sstream>

#include <fmt/core.h>

namespace outboard::vmm {
namespace {

// The value of an override: TOML if it is that, else the bare text.
void assign(toml::table& table, const std::string& key, const Override& change) {
  if (!change.literal_string) {
    toml::parse_result parsed = toml::parse(fmt::format("v = {}", change.value));
    if (parsed && parsed.table().size() == 1) {
      table.insert_or_assign(key, std::move(*parsed.table().get("v")));
      return;
    }
  }
  table.insert_or_assign(key, change.value);
}

// The table that `path` leads to (all but its last word); made where it is missing.
toml::table* descend(toml::table& root, std::vector<std::string>& words,
                     std::vector<std::string>& errors, const std::string& path) {
  toml::table* table = &root;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    toml::node* node = table->get(words[i]);
    if (node == nullptr) {
      if (words[i] == "device") {
        errors.push_back(fmt::format("--set {}: the configuration has no [[device]]", path));
        return nullptr;
      }
      node = &table->insert(words[i], toml::table{}).first->second;
    }
    if (toml::array* array = node->as_array(); array != nullptr && i + 2 < words.size()) {
      const std::string& which = words[i + 1];
      std::size_t index = array->size();
      for (std::size_t k = 0; k < array->size(); ++k) {
        const toml::table* element = array->get(k)->as_table();
        if (element == nullptr) continue;
        const auto name = (*element)["name"].value<std::string>();
        if (which == std::to_string(k) || (name && *name == which)) index = k;
      }
      if (index == array->size()) {
        errors.push_back(
            fmt::format("--set {}: there is no {} '{}'; name one or give its position "
                        "from 0",
                        path, words[i], which));
        return nullptr;
      }
      words[i + 1] = std::to_string(index);
      table = array->get(index)->as_table();
      ++i;
      continue;
    }
    table = node->as_table();
    if (table == nullptr) {
      errors.push_back(fmt::format("--set {}: '{}' is no table", path, words[i]));
      return nullptr;
    }
  }
  return table;
}

}  // namespace

void apply_overrides(toml::table& root, const std::vector<Override>& overrides,
                     TomlContext& context) {
  for (const Override& change : overrides) {
    std::vector<std::string> words;
    std::istringstream stream(change.path);
    for (std::string word; std::getline(stream, word, '.');) words.push_back(word);
    if (words.size() < 2 ||
        std::any_of(words.begin(), words.end(), [](auto& w) { return w.empty(); })) {
      context.errors.push_back(fmt::format(
          "--set {}: write a dotted path, such as machine.vcpus or device.0.socket", change.path));
      continue;
    }
    toml::table* table = descend(root, words, context.errors, change.path);
    if (table == nullptr) continue;
    assign(*table, words.back(), change);
    std::string resolved;
    for (const auto& word : words) resolved += (resolved.empty() ? "" : ".") + word;
    context.overridden.insert(resolved);
  }
}

}  // namespace outboard::vmm
