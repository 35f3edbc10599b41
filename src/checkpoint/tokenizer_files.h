// The files beside the weights from which Hugging Face's T5Tokenizer is built.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace switchyard {

// Writes spiece.model (its bytes as given), tokenizer_config.json and special_tokens_map.json: 100 sentinels behind the
// pieces, <extra_id_0> last, or none where the pieces have them (mT5). A tokenizer.json, if there is one, is written as
// given and then speaks of the sentinels.
void write_tokenizer_files(const std::filesystem::path& folder, std::string_view vocabulary,
                           std::string_view tokenizer_json);

// Bytes of the folder's tokenizer.json, or "" if it has none.
std::string read_tokenizer_file(const std::filesystem::path& folder);

}  // namespace switchyard
