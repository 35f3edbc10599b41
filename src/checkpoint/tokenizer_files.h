// The files beside the weights from which Hugging Face's T5Tokenizer is built.
#pragma once

#include <filesystem>
#include <string_view>

namespace switchyard {

// Writes spiece.model (its bytes as given), tokenizer_config.json and special_tokens_map.json: 100 sentinels behind the
// pieces, <extra_id_0> last.
void write_tokenizer_files(const std::filesystem::path& folder, std::string_view vocabulary);

}  // namespace switchyard
