// "cola sentence: {sentence}" filled from a row of data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"

namespace switchyard {

class Template {
 public:
  // {name} is a field, {{ and }} are braces. Throws Error beginning with `place` for a brace without its partner.
  Template(std::string_view text, const std::string& place);

  const std::vector<std::string>& fields() const { return fields_; }

  // value_of(name) gives each field's text.
  template <class ValueOf>
  std::string fill(const ValueOf& value_of) const {
    std::string text = literals_[0];
    for (size_t n = 0; n < fields_.size(); ++n) text += value_of(fields_[n]) + literals_[n + 1];
    return text;
  }

 private:
  std::vector<std::string> fields_;
  std::vector<std::string> literals_;  // one more than fields: before, between and behind them
};

// "a, b, c", for messages.
std::string join_names(const std::vector<std::string>& names);

}  // namespace switchyard
