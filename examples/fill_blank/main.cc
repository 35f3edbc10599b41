// Fills the blank of a sentence, and says how likely a model holds given words for it:
//
//   fill_blank MODEL "The <extra_id_0> sat by the door." "cat" "old man"
#include <switchyard/base/error.h>
#include <switchyard/checkpoint/model_directory.h>
#include <switchyard/generate/blanks.h>
#include <switchyard/generate/score.h>
#include <switchyard/generate/session.h>

#include <iomanip>
#include <iostream>

using namespace switchyard;

namespace {

// T5 ends what it reads and writes with EOS.
std::vector<int32_t> encode(const Vocabulary& vocabulary, const std::string& text) {
  auto ids = vocabulary.encode(text);
  ids.push_back(vocabulary.eos_id());
  return ids;
}

void fill_blank(const std::filesystem::path& folder, const std::string& sentence,
                const std::vector<std::string>& words) {
  const auto vocabulary = Vocabulary::load(folder);
  const auto [config, weights, experts] = open_for_inference(folder, at::kFloat);
  const auto prompt = encode(vocabulary, sentence);

  const auto results = generate_all(config, weights, &vocabulary, {{.ids = prompt, .search = {.max_tokens = 16}}}, {});
  std::cout << fill_blanks(sentence, results[0][0].ids, vocabulary) << '\n';

  std::vector<std::vector<int32_t>> targets;
  for (const auto& word : words) targets.push_back(encode(vocabulary, "<extra_id_0> " + word));
  const auto scored = score_targets(config, weights, prompt, targets);
  for (size_t n = 0; n < words.size(); ++n)
    std::cout << std::setprecision(8) << scored[n].score << '\t' << words[n] << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: fill_blank MODEL SENTENCE [WORDS]...   (the sentence has a blank <extra_id_0>)\n";
    return 2;
  }
  try {
    fill_blank(argv[1], argv[2], {argv + 3, argv + argc});
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
