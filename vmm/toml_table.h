#pragma once

// A TOML file being read: tables whose getters note every key they are asked for, so that the rest
// can be refused as unknown; and where each fault is. Includes toml++, which is heavy: for the few
// source files that read the configuration. For one thread.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/toml.h"

namespace outboard::vmm {

// What all tables of one file share while it is read.
struct TomlContext {
  std::string file;
  std::string folder;                // of the file: relative paths start here
  std::set<std::string> overridden;  // dotted paths that came from the command line
  std::vector<std::string> errors;   // a line each, with file, line and column

  void fail(const toml::source_region& at, const std::string& path, const std::string& what);
};

// One table. Each getter leaves `out` as it is when the key is absent or its value is at fault.
class TomlTable {
 public:
  TomlTable(TomlContext& context, const toml::table& table, std::string path);

  [[nodiscard]] std::string path_of(std::string_view key) const;
  const toml::node* find(const std::string& key);  // null: absent
  [[nodiscard]] bool has(const std::string& key) const { return table_.contains(key); }
  [[nodiscard]] bool is_string(const std::string& key) const { return table_[key].is_string(); }
  [[nodiscard]] TomlContext& context() { return context_; }

  void fail(const std::string& key, const std::string& what);
  void wrong_type(const std::string& key, const toml::node& node, std::string_view wanted);

  void string(const std::string& key, std::string& out);
  void strings(const std::string& key, std::vector<std::string>& out);
  void boolean(const std::string& key, bool& out);

  template <class Int>
  void integer(const std::string& key, Int& out, std::int64_t low, std::int64_t high) {
    if (const auto value = number(key, low, high)) out = static_cast<Int>(*value);
  }
  template <class Int>
  void integer(const std::string& key, std::optional<Int>& out, std::int64_t low,
               std::int64_t high) {
    if (const auto value = number(key, low, high)) out = static_cast<Int>(*value);
  }

  // Bytes: a string with a unit, or a whole number.
  void size(const std::string& key, std::uint64_t& out);
  // A guest-physical address: a string, or a number, which TOML can write as 0x....
  void address(const std::string& key, std::uint64_t& out);
  // A string with a unit; more than zero.
  void duration(const std::string& key, std::chrono::milliseconds& out);
  // A path, made absolute: relative to the file, or to the working directory for an override. One
  // that names a descriptor stays as it is.
  void path(const std::string& key, std::string& out);
  // Host CPU numbers; an array of them a vCPU.
  void cpus(const std::string& key, std::vector<int>& out);
  void cpu_lists(const std::string& key, std::vector<std::vector<int>>& out);

  // One of these words.
  template <class Enum>
  void choice(const std::string& key, Enum& out,
              const std::vector<std::pair<std::string, Enum>>& choices) {
    const auto text = word(key);
    if (!text) return;
    std::vector<std::string> words;
    for (const auto& [name, value] : choices) {
      if (name == *text) {
        out = value;
        return;
      }
      words.push_back(name);
    }
    refuse_word(key, *text, std::move(words));
  }

  // Calls `read` with the table under `key` when there is one.
  template <class Read>
  void table(const std::string& key, Read&& read) {
    if (const toml::table* found = inner_table(key)) {
      TomlTable inner(context_, *found, path_of(key));
      read(inner);
      inner.finish();
    }
  }

  // Calls `read` with each table of the array under `key`.
  template <class Read>
  void tables(const std::string& key, const toml::array& array, Read&& read) {
    for (std::size_t i = 0; i < array.size(); ++i) {
      const toml::table* element = array.get(i)->as_table();
      if (element == nullptr) return wrong_type(key, *array.get(i), "an array of tables");
      TomlTable inner(context_, *element, path_of(key) + "." + std::to_string(i));
      read(inner);
      inner.finish();
    }
  }

  // Refuses every key that was not asked for, with the nearest that was.
  void finish();

 private:
  std::optional<std::int64_t> number(const std::string& key, std::int64_t low, std::int64_t high);
  std::optional<std::string> word(const std::string& key);
  void refuse_word(const std::string& key, const std::string& text, std::vector<std::string> words);
  const toml::table* inner_table(const std::string& key);
  void cpus(const std::string& key, const toml::array& array, std::vector<int>& out);

  TomlContext& context_;
  const toml::table& table_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace outboard::vmm
