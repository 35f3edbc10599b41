// UTF-8 as text files must have it: shortest forms only, no surrogates, nothing above U+10FFFF (RFC 3629).
#pragma once

#include <cstddef>
#include <string_view>

namespace switchyard {

// Byte offset of the first malformed sequence, or text.size() if there is none.
size_t find_invalid_utf8(std::string_view text);

// The largest cut <= limit that does not split a character; limit <= text.size(), text well-formed.
size_t character_boundary(std::string_view text, size_t limit);

}  // namespace switchyard
