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

// Sentences of a comfortable length, one a document, from documents spread over the text.
std::vector<std::vector<std::string>> pick_sentences(const std::vector<std::string>& paths, int64_t count) {
  constexpr size_t kMinWords = 10, kMaxWords = 24;
  TextReader reader({paths.begin(), paths.end()});
  std::vector<std::vector<std::string>> sentences;
  int64_t number = 0;
  while (const auto document = reader.next_document()) {
    if (number++ % 7 != 3) continue;
    for (size_t start = document->find(". "); start != std::string::npos; start = document->find(". ", start + 2)) {
      const size_t end = document->find(". ", start + 2);
      if (end == std::string::npos) break;
      auto words = words_of(document->substr(start + 2, end - start - 1));
      if (words.size() < kMinWords || words.size() > kMaxWords) continue;
      sentences.push_back(std::move(words));
      break;
    }
    if (static_cast<int64_t>(sentences.size()) == count) break;
  }
  return sentences;
}

// Replaces two spans of one or two words, one in each half, by sentinels.
std::string cut_blanks(std::vector<std::string> words, uint64_t number) {
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

Json sample_blanks(const std::vector<ComparedRun>& runs, int64_t count) {
  const auto& first = *runs.front().trainer;
  Json samples = Json::array();
  if (first.run().data.eval_text.empty()) return samples;
  const auto& vocabulary = first.vocabulary();
  std::vector<Request> requests;
  for (const auto& words : pick_sentences(first.run().data.eval_text, count)) {
    const std::string prompt = cut_blanks(words, samples.size());
    samples.push_back({{"text", joined(words)}, {"prompt", prompt}, {"filled", Json::object()}});
    requests.push_back({.prompt = prompt, .ids = vocabulary.encode(prompt), .search = {.max_tokens = 24}});
    requests.back().ids.push_back(vocabulary.eos_id());
  }
  if (requests.empty()) return samples;
  const at::NoGradGuard no_grad;
  for (const auto& run : runs) {
    const auto weights = cast_weights(run.trainer->run().model, run.trainer->weights(), at::kFloat);
    const auto outputs = generate_all(run.trainer->run().model, weights, &vocabulary, requests, {.max_length = 24});
    for (size_t n = 0; n < requests.size(); ++n)
      samples[n]["filled"][run.name] =
          fill_blanks(samples[n]["prompt"].get<std::string>(), outputs[n].front().ids, vocabulary);
  }
  return samples;
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
