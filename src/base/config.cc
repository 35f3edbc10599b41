#include "base/config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/files.h"

namespace switchyard {
namespace {

Json to_json(const toml::node& node, const std::string& place) {
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* list = node.as_array()) {
    Json json = Json::array();
    for (const auto& item : *list) json.push_back(to_json(item, place));
    return json;
  }
  if (const auto* table = node.as_table()) {
    Json json = Json::object();
    for (const auto& [key, value] : *table) json[std::string(key.str())] = to_json(value, place);
    return json;
  }
  throw Error(place + ": expected a number, a string, true or false, or a list or table of them");
}

toml::table parse(std::string_view text, const std::string& source) {
  try {
    return toml::parse(text, std::string_view(source));
  } catch (const toml::parse_error& error) {
    throw Error(join(source, ":", error.source().begin.line, ": not TOML: ", error.description()));
  }
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1] ? 1 : 0)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string toml_value(const Json& value) {
  if (value.is_array()) {
    std::string text = "[";
    for (const auto& item : value) text += (text.size() > 1 ? ", " : "") + toml_value(item);
    return text + "]";
  }
  if (value.is_object()) {
    std::string text = "{";
    for (const auto& [key, item] : value.items())
      text += (text.size() > 1 ? ", " : "") + key + " = " + toml_value(item);
    return text + "}";
  }
  if (value.is_number_float() && !std::isfinite(value.get<double>()))
    return std::isnan(value.get<double>()) ? "nan" : value.get<double>() > 0 ? "inf" : "-inf";
  return value.dump();  // JSON's strings, numbers and booleans are TOML's too
}

}  // namespace

ConfigDocument parse_toml(std::string_view text, const std::string& source) {
  ConfigDocument document;
  for (const auto& [section, node] : parse(text, source)) {
    const std::string section_name(section.str());
    const auto* table = node.as_table();
    SY_CHECK(table != nullptr, source, ":", node.source().begin.line, ": ", section_name,
             " stands outside a section; put it under [model], [data], [train], [optimizer] or [parallel]");
    document.sections[section_name] = Json::object();
    for (const auto& [key, value] : *table) {
      const std::string name = section_name + "." + std::string(key.str());
      document.places[name] = join(source, ":", value.source().begin.line);
      document.sections[section_name][std::string(key.str())] = to_json(value, document.place(name));
    }
  }
  return document;
}

ConfigDocument read_toml(const std::filesystem::path& path) {
  return parse_toml(read_file(path, 1 << 20), path.string());
}

void apply_setting(ConfigDocument& document, const std::string& assignment) {
  const auto equals = assignment.find('=');
  const auto dot = assignment.find('.');
  SY_CHECK(equals != std::string::npos && dot != std::string::npos && dot < equals, "--set ", assignment,
           ": expected section.key=value, for example --set train.steps=100");
  const std::string section = assignment.substr(0, dot), key = assignment.substr(dot + 1, equals - dot - 1);
  const std::string text = assignment.substr(equals + 1);
  document.places[section + "." + key] = "--set";
  Json value = text;
  try {
    const auto table = toml::parse("value = " + text);
    value = to_json(*table.get("value"), "--set " + assignment);
  } catch (const toml::parse_error&) {
    // a bare word: keep it as a string
  }
  document.sections[section][key] = value;
}

std::string write_toml(const Json& sections) {
  std::string text;
  for (const auto& [section, values] : sections.items()) {
    text += (text.empty() ? "[" : "\n[") + section + "]\n";
    for (const auto& [key, value] : values.items()) text += key + " = " + toml_value(value) + "\n";
  }
  return text;
}

std::string nearest_hint(std::string_view name, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(3, name.size() / 2);
  for (const auto& candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = &candidate;
    }
  }
  return best == nullptr ? "" : " (did you mean \"" + *best + "\"?)";
}

namespace config_detail {

void throw_unknown_word(const Json& value, const std::string& place, const std::vector<std::string>& known) {
  std::string list;
  for (const auto& word : known) list += (list.empty() ? "" : ", ") + word;
  const std::string given = value.is_string() ? value.get<std::string>().substr(0, 64) : std::string();
  throw Error(join(place, ": expected one of ", list, ", got ", value.dump().substr(0, 70),
                   given.empty() ? "" : nearest_hint(given, known)));
}

void check_keys(const Json& values, const std::string& section, const std::vector<std::string>& known,
                const std::function<std::string(const std::string& key)>& place) {
  for (const auto& [key, value] : values.items())
    SY_CHECK(std::find(known.begin(), known.end(), key) != known.end(), place(key), ": unknown key in [", section, "]",
             nearest_hint(key, known), "; `switchyard train --help-config` lists all keys");
}

void read_value(const Json& value, const std::string& place, bool& out) {
  SY_CHECK(value.is_boolean(), place, ": expected true or false, got ", value.dump());
  out = value.get<bool>();
}
void read_value(const Json& value, const std::string& place, int64_t& out) {
  SY_CHECK(value.is_number_integer(), place, ": expected a whole number, got ", value.dump());
  out = value.get<int64_t>();
}
void read_value(const Json& value, const std::string& place, std::optional<int64_t>& out) {
  if (value == "auto") return out.reset();
  SY_CHECK(value.is_number_integer(), place, ": expected an integer or \"auto\", got ", value.dump());
  int64_t number = 0;
  read_value(value, place, number);
  out = number;
}

void read_value(const Json& value, const std::string& place, double& out) {
  SY_CHECK(value.is_number(), place, ": expected a number, got ", value.dump());
  out = value.get<double>();
}
void read_value(const Json& value, const std::string& place, std::string& out) {
  SY_CHECK(value.is_string(), place, ": expected a string, got ", value.dump());
  out = value.get<std::string>();
}

}  // namespace config_detail
}  // namespace switchyard
