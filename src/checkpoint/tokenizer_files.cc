#include "checkpoint/tokenizer_files.h"

#include "base/config.h"
#include "base/files.h"

namespace switchyard {

void write_tokenizer_files(const std::filesystem::path& folder, std::string_view vocabulary) {
  constexpr int kNumSentinels = 100;
  Json sentinels = Json::array();
  for (int i = 0; i < kNumSentinels; ++i) sentinels.push_back("<extra_id_" + std::to_string(i) + ">");
  const Json tokens = {
      {"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}, {"additional_special_tokens", sentinels}};
  Json config = {{"tokenizer_class", "T5Tokenizer"}, {"extra_ids", kNumSentinels}, {"model_max_length", 512}};
  config.update(tokens);
  write_file_atomically(folder / "spiece.model", vocabulary);
  write_file_atomically(folder / "special_tokens_map.json", tokens.dump(2) + "\n");
  write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace switchyard
