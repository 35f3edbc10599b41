// Configuration: TOML text -> one JSON document -> plain structs, by each struct's one list of fields.
//
// A config struct names its fields once:
//   template <class Self, class Field> static void visit(Self& self, Field&& field) {
//     field("d_model", self.d_model, "width of the residual stream");
//   }
// and gets from that list: reading with checks (unknown keys are errors that name the nearest known one), JSON and TOML
// output, and the text of --help-config. Field types: bool, int64_t, double, std::string, vectors of the last three,
// enums with words (base/enum_words.h), and vectors of config structs ([[section.key]] in TOML).
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_words.h"
#include "base/error.h"
#include "base/json.h"

namespace switchyard {

// A parsed run file: sections of keys. `places` maps "section.key" to "file:line" or to "--set", for messages.
struct ConfigDocument {
  Json sections = Json::object();
  std::map<std::string, std::string> places;
  std::string place(const std::string& key) const {
    const auto found = places.find(key);
    return found == places.end() ? key : found->second + ": " + key;
  }
};

// Throws Error with file and line if the text is not TOML, or a key stands outside a section.
ConfigDocument parse_toml(std::string_view text, const std::string& source);
ConfigDocument read_toml(const std::filesystem::path& path);

// Applies one "section.key=value"; the value is TOML, or taken as a string if it is not. Throws Error if it has no dot
// or '='.
void apply_setting(ConfigDocument& document, const std::string& assignment);

// {"section": {"key": value}} as TOML text that read_toml reads back.
std::string write_toml(const Json& sections);

// The known name nearest to `name` by edit distance, as ` (did you mean "x"?)`, or "" if none is near.
std::string nearest_hint(std::string_view name, const std::vector<std::string>& known);

namespace config_detail {
// A word and the words that were expected in its place.
[[noreturn]] void throw_unknown_word(const Json& value, const std::string& place,
                                     const std::vector<std::string>& known);

template <class Enum>
requires has_words<Enum>
void read_value(const Json& value, const std::string& place, Enum& out) {
  const auto found = value.is_string() ? from_word<Enum>(value.get_ref<const std::string&>()) : std::nullopt;
  if (!found) throw_unknown_word(value, place, {enum_words<Enum>.begin(), enum_words<Enum>.end()});
  out = *found;
}

// A config struct, as above.
template <class T>
inline constexpr bool has_fields = requires(T value) {
  T::visit(value, [](const char*, auto&, const char*) {});
};

template <class T>
Json write_value(const T& value) {
  if constexpr (has_words<T>)
    return to_word(value);
  else
    return value;
}
template <class T>
requires has_fields<T> Json write_value(const std::vector<T>& values) {
  Json list = Json::array();
  for (const auto& value : values) {
    list.push_back(Json::object());
    T::visit(value, [&](const char* name, const auto& field, const char*) { list.back()[name] = write_value(field); });
  }
  return list;
}

void read_value(const Json& value, const std::string& place, bool& out);
void read_value(const Json& value, const std::string& place, int64_t& out);
void read_value(const Json& value, const std::string& place, double& out);
void read_value(const Json& value, const std::string& place, std::string& out);
template <class Config>
requires has_fields<Config>
void read_value(const Json& value, const std::string& place, Config& out);
// A number that the program may choose: absent is the word "auto".
void read_value(const Json& value, const std::string& place, std::optional<int64_t>& out);
inline Json write_value(const std::optional<int64_t>& value) { return value ? Json(*value) : Json("auto"); }
template <class T>
void read_value(const Json& value, const std::string& place, std::vector<T>& out) {
  SY_CHECK(value.is_array(), place, ": expected a list, got ", value.dump());
  out.clear();
  for (const auto& item : value) {
    T element{};
    read_value(item, place, element);
    out.push_back(element);
  }
}
}  // namespace config_detail

template <class Config>
std::vector<std::string> field_names() {
  std::vector<std::string> names;
  Config config{};
  Config::visit(config, [&](const char* name, auto&, const char*) { names.emplace_back(name); });
  return names;
}

namespace config_detail {
// Throws Error naming the place for the first key of `values` that is not known.
void check_keys(const Json& values, const std::string& section, const std::vector<std::string>& known,
                const std::function<std::string(const std::string& key)>& place);

template <class Config>
requires has_fields<Config>
void read_value(const Json& value, const std::string& place, Config& out) {
  SY_CHECK(value.is_object(), place, ": expected a table of keys, got ", value.dump());
  const auto place_of = [&](const std::string& key) { return place + "." + key; };
  check_keys(value, place, field_names<Config>(), place_of);
  Config::visit(out, [&](const char* name, auto& field, const char*) {
    if (value.contains(name)) read_value(value.at(name), place_of(name), field);
  });
}
}  // namespace config_detail

// Sets the fields that the section mentions. Throws Error for a value of the wrong type and for an unknown key; keys
// listed in `also_known` are left to the caller.
template <class Config>
void read_section(Config& config, const ConfigDocument& document, const std::string& section,
                  const std::vector<std::string>& also_known = {}) {
  if (!document.sections.contains(section)) return;
  const Json& values = document.sections.at(section);
  auto known = field_names<Config>();
  known.insert(known.end(), also_known.begin(), also_known.end());
  config_detail::check_keys(values, section, known,
                            [&](const std::string& key) { return document.place(section + "." + key); });
  Config::visit(config, [&](const char* name, auto& field, const char*) {
    if (values.contains(name)) config_detail::read_value(values.at(name), document.place(section + "." + name), field);
  });
}

template <class Config>
Json fields_to_json(const Config& config) {
  Json json = Json::object();
  Config::visit(config, [&](const char* name, const auto& field, const char*) {
    json[name] = config_detail::write_value(field);
  });
  return json;
}

template <class Config>
std::string describe_fields(const std::string& section);

namespace config_detail {
// The keys of one of a list of config structs; "" for other fields.
template <class T>
std::string describe_parts(const std::string&, const T&) {
  return "";
}
template <class T>
requires has_fields<T> std::string describe_parts(const std::string& name, const std::vector<T>&) {
  return "\n" + describe_fields<T>("[" + name + "]");
}
}  // namespace config_detail

// One line a field: name, default, meaning.
template <class Config>
std::string describe_fields(const std::string& section) {
  std::string text = "[" + section + "]\n", nested;
  const Config config{};
  Config::visit(config, [&](const char* name, const auto& field, const char* meaning) {
    const std::string left = std::string(name) + " = " + config_detail::write_value(field).dump();
    text += "  " + left + std::string(left.size() < 40 ? 40 - left.size() : 1, ' ') + "# " + meaning + "\n";
    nested += config_detail::describe_parts(section + "." + name, field);
  });
  return text + nested;
}

}  // namespace switchyard
