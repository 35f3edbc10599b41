#include "tasks/template.h"

#include "base/error.h"

namespace switchyard {

Template::Template(std::string_view text, const std::string& place) : literals_(1) {
  for (size_t at = 0; at < text.size(); ++at) {
    const bool doubled = at + 1 < text.size() && text[at + 1] == text[at];
    if (text[at] != '{' && text[at] != '}') {
      literals_.back() += text[at];
    } else if (doubled) {
      literals_.back() += text[at++];
    } else {
      const size_t end = text.find('}', at);
      SY_CHECK(text[at] == '{' && end != text.npos && end > at + 1, place, ": a lone brace in \"", text,
               "\"; {name} is a field, {{ and }} are braces");
      fields_.emplace_back(text.substr(at + 1, end - at - 1));
      literals_.emplace_back();
      at = end;
    }
  }
}

std::string join_names(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace switchyard
