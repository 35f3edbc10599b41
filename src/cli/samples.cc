#include "cli/samples.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <sstream>

#include "base/random.h"
#include "generate/blanks.h"
#include "generate/session.h"
#include "text/reader.h"

namespace switchyard {
namespace {

std::vector<std::string> words_of(const std::string& sentence) {
  std::istringstream stream(sentence);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// Appends a document's sentences of a comfortable length, `most` at most. The first is left out: it may be a title.
void pick_from(const std::string& document, size_t most, std::vector<std::vector<std::string>>& sentences) {
  constexpr size_t kMinWords = 8, kMaxWords = 24;
  const auto next_end = [&](size_t from) {
    size_t at = document.find('.', from);
    while (at != std::string::npos && at + 1 < document.size() && document[at + 1] != ' ' && document[at + 1] != '\n')
      at = document.find('.', at + 1);
    return at;
  };
  for (size_t start = next_end(0); start != std::string::npos && most > 0;) {
    const size_t end = next_end(start + 1);
    if (end == std::string::npos) break;
    auto words = words_of(document.substr(start + 1, end - start));
    start = end;
    if (words.size() < kMinWords || words.size() > kMaxWords) continue;
    sentences.push_back(std::move(words));
    --most;
  }
}

// Sentences from documents spread over the text, one each; of a text with few documents, its first.
std::vector<std::vector<std::string>> pick_sentences(const std::vector<std::string>& paths, int64_t count) {
  const auto wanted = static_cast<size_t>(count);
  std::vector<std::vector<std::string>> spread, first;
  TextReader reader({paths.begin(), paths.end()});
  for (int64_t number = 0; spread.size() < wanted; ++number) {
    const auto document = reader.next_document();
    if (!document) break;
    if (number % 7 == 3) pick_from(*document, 1, spread);
    if (first.size() < wanted) pick_from(*document, wanted - first.size(), first);
  }
  return spread.size() < wanted ? first : spread;
}

// Replaces two spans of one or two words, one in each half, by sentinels.
std::string with_blanks(std::vector<std::string> words, uint64_t number) {
  NoiseStream draw({.seed = 1, .purpose = NoisePurpose::kEvaluation}, number);
  const size_t half = words.size() / 2;
  const size_t second = half + 1 + draw.below(half - 3), second_length = 1 + draw.below(2);
  const size_t first = 1 + draw.below(half - 3), first_length = 1 + draw.below(2);
  const auto cut = [&](size_t at, size_t length, const char* sentinel) {
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(at),
                words.begin() + static_cast<std::ptrdiff_t>(at + length));
    words.insert(words.begin() + static_cast<std::ptrdiff_t>(at), sentinel);
  };
  cut(second, second_length, "<extra_id_1>");
  cut(first, first_length, "<extra_id_0>");
  return joined(words);
}

}  // namespace

BlankSentences cut_blanks(const std::vector<std::string>& texts, const Vocabulary& vocabulary, int64_t count) {
  BlankSentences sentences;
  if (texts.empty()) return sentences;
  for (const auto& words : pick_sentences(texts, count)) {
    const std::string prompt = with_blanks(words, sentences.samples.size());
    sentences.samples.push_back({{"text", joined(words)}, {"prompt", prompt}, {"filled", Json::object()}});
    sentences.requests.push_back({.prompt = prompt, .ids = vocabulary.encode(prompt), .search = {.max_tokens = 24}});
    sentences.requests.back().ids.push_back(vocabulary.eos_id());
  }
  return sentences;
}

void fill_in(BlankSentences& sentences, const std::string& run, const ModelConfig& config,
             const ComputeWeights& weights, const Vocabulary& vocabulary) {
  if (sentences.requests.empty()) return;
  const at::NoGradGuard no_grad;
  const auto outputs = generate_all(config, weights, &vocabulary, sentences.requests, {.max_length = 24});
  for (size_t n = 0; n < outputs.size(); ++n)
    sentences.samples[n]["filled"][run] = fill_blanks(sentences.requests[n].prompt, outputs[n].front().ids, vocabulary);
}

Json sample_blanks(const std::vector<ComparedRun>& runs, int64_t count) {
  const auto& first = *runs.front().trainer;
  auto sentences = cut_blanks(first.run().data.eval_text, first.vocabulary(), count);
  for (const auto& run : runs)
    fill_in(sentences, run.name, run.trainer->run().model,
            cast_weights(run.trainer->run().model, run.trainer->weights(), at::kFloat), first.vocabulary());
  return sentences.samples;
}

void print_samples(const Json& samples) {
  if (samples.empty()) return;
  std::printf("\nBlanks filled in, from held-out text\n");
  for (const auto& sample : samples) {
    std::printf("\n  %-10s %s\n  %-10s %s\n", "prompt", sample.at("prompt").get<std::string>().c_str(), "original",
                sample.at("text").get<std::string>().c_str());
    for (const auto& [name, filled] : sample.at("filled").items())
      std::printf("  %-10s %s\n", name.c_str(), filled.get<std::string>().c_str());
  }
}

}  // namespace switchyard
