#include "checkpoint/tokenizer_files.h"

#include "base/config.h"
#include "base/files.h"

namespace switchyard {

void write_tokenizer_files(const std::filesystem::path& folder, std::string_view vocabulary,
                           std::string_view tokenizer_json) {
  constexpr int kNumSentinels = 100;
  Json sentinels = Json::array();
  for (int i = 0; i < kNumSentinels; ++i) sentinels.push_back("<extra_id_" + std::to_string(i) + ">");
  Json tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
  Json config = {{"tokenizer_class", "T5Tokenizer"}, {"model_max_length", 512}};
  if (tokenizer_json.empty()) {
    tokens["additional_special_tokens"] = sentinels;
    config["extra_ids"] = kNumSentinels;
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
