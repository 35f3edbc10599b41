#include "checkpoint/tokenizer_files.h"

#include "base/config.h"
#include "base/files.h"

namespace switchyard {

void write_tokenizer_files(const std::filesystem::path& folder, std::string_view vocabulary,
                           std::string_view tokenizer_json) {
  const bool has_own = vocabulary.find("<extra_id_0>") != std::string_view::npos;
  const int num_sentinels = has_own ? 0 : 100;
  Json sentinels = Json::array();
  for (int i = 0; i < num_sentinels; ++i) sentinels.push_back("<extra_id_" + std::to_string(i) + ">");
  Json tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
  Json config = {{"tokenizer_class", "T5Tokenizer"}, {"model_max_length", 512}};
  if (tokenizer_json.empty()) {
    if (!has_own) tokens["additional_special_tokens"] = sentinels;
    config["extra_ids"] = num_sentinels;
  } else {
    write_file_atomically(folder / "tokenizer.json", tokenizer_json);
  }
  config.update(tokens);
  write_file_atomically(folder / "spiece.model", vocabulary);
  write_file_atomically(folder / "special_tokens_map.json", tokens.dump(2) + "\n");
  write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

std::string read_tokenizer_file(const std::filesystem::path& folder) {
  const auto path = folder / "tokenizer.json";
  return std::filesystem::exists(path) ? read_file(path, uint64_t{1} << 28) : "";
}

}  // namespace switchyard
