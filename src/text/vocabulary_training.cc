#include "text/vocabulary_training.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/messages.h"
#include "base/random.h"
#include "text/reader.h"
#include "text/sentencepiece_model.h"
#include "text/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxSentenceBytes = 4000;  // SentencePiece drops sentences of more than 4192 bytes

// A uniform sample of the sentences by weight of bytes: each has a random rank, and the lowest ranks are kept.
class SentenceSample {
 public:
  SentenceSample(size_t max_bytes, uint64_t seed)
      : max_bytes_(max_bytes), ranks_({.seed = seed, .purpose = NoisePurpose::kShuffle}) {}

  void add(std::string_view text) {
    const uint64_t rank = ranks_.next64();
    ++num_seen_;
    if (rank >= limit_) return;
    kept_.push_back({rank, num_seen_, std::string(text)});
    std::push_heap(kept_.begin(), kept_.end(), by_rank);
    num_bytes_ += text.size();
    while (num_bytes_ > max_bytes_ && kept_.size() > 1) {
      std::pop_heap(kept_.begin(), kept_.end(), by_rank);
      num_bytes_ -= kept_.back().text.size();
      limit_ = kept_.back().rank;  // later sentences above it would be dropped at once
      kept_.pop_back();
    }
  }
  // In the order of the text.
  std::vector<std::string> take() {
    std::sort(kept_.begin(), kept_.end(), [](const Sentence& a, const Sentence& b) { return a.number < b.number; });
    std::vector<std::string> sentences;
    sentences.reserve(kept_.size());
    for (auto& sentence : kept_) sentences.push_back(std::move(sentence.text));
    return sentences;
  }
  size_t num_bytes() const { return num_bytes_; }
  uint64_t num_seen() const { return num_seen_; }

 private:
  struct Sentence {
    uint64_t rank, number;
    std::string text;
  };
  static bool by_rank(const Sentence& a, const Sentence& b) { return a.rank < b.rank; }

  size_t max_bytes_, num_bytes_ = 0;
  uint64_t num_seen_ = 0, limit_ = UINT64_MAX;
  NoiseStream ranks_;
  std::vector<Sentence> kept_;
};

// Lines of the document; long ones are cut at spaces.
void add_sentences(std::string_view document, SentenceSample& sample) {
  while (!document.empty()) {
    const size_t newline = std::min(document.find('\n'), document.size());
    std::string_view line = document.substr(0, newline);
    document.remove_prefix(std::min(newline + 1, document.size()));
    while (!line.empty()) {
      size_t length = line.size();
      if (length > kMaxSentenceBytes) {
        length = line.substr(0, kMaxSentenceBytes).find_last_of(" \t");
        if (length == std::string_view::npos || length == 0) length = character_boundary(line, kMaxSentenceBytes);
      }
      if (line.substr(0, length).find_first_not_of(" \t\r") != std::string_view::npos)
        sample.add(line.substr(0, length));
      line.remove_prefix(length);
    }
  }
}

struct SampledText {
  std::vector<std::string> sentences;
  uint64_t num_seen = 0;
  size_t num_bytes = 0;
};

SampledText sample_of(const std::vector<std::filesystem::path>& text, size_t max_bytes, int64_t seed) {
  SentenceSample sample(max_bytes, static_cast<uint64_t>(seed));
  TextReader reader(text);
  while (const auto document = reader.next_document()) {
    SY_CHECK(!interrupted(), "interrupted; no vocabulary was made");
    add_sentences(*document, sample);
  }
  const size_t num_bytes = sample.num_bytes();
  return {sample.take(), sample.num_seen(), num_bytes};
}

size_t bytes_of_text(const std::filesystem::path& file) {
  TextReader reader({file});
  size_t bytes = 0;
  while (const auto document = reader.next_document()) bytes += document->size();
  return bytes;
}

// What each file may give of `limit` bytes: in proportion to bytes^exponent, and where that is more than a file has,
// all of it, the rest going to the others in the same way.
std::vector<size_t> share_bytes(const std::vector<size_t>& bytes, double limit, double exponent) {
  std::vector<size_t> shares = bytes;
  std::vector<bool> is_whole(bytes.size(), false);
  for (bool changed = true; changed;) {
    changed = false;
    double left = limit, weights = 0.0;
    for (size_t file = 0; file < bytes.size(); ++file)
      (is_whole[file] ? left : weights) +=
          (is_whole[file] ? -static_cast<double>(bytes[file]) : std::pow(static_cast<double>(bytes[file]), exponent));
    for (size_t file = 0; file < bytes.size(); ++file) {
      if (is_whole[file]) continue;
      const double share = left * std::pow(static_cast<double>(bytes[file]), exponent) / weights;
      is_whole[file] = share >= static_cast<double>(bytes[file]);
      changed |= is_whole[file];
      shares[file] = is_whole[file] ? bytes[file] : static_cast<size_t>(share);
    }
  }
  return shares;
}

SampledText sample_text(const VocabularyTraining& training) {
  if (training.exponent == 1.0)
    return sample_of(training.text, static_cast<size_t>(training.max_text_bytes), training.seed);
  const auto files = find_text_files(training.text);
  std::vector<size_t> bytes;
  for (const auto& file : files) {
    SY_CHECK(file != "-", "standard input is read once; an exponent other than 1 wants files");
    bytes.push_back(bytes_of_text(file));
  }
  const auto shares = share_bytes(bytes, static_cast<double>(training.max_text_bytes), training.exponent);
  SampledText all;
  for (size_t file = 0; file < files.size(); ++file) {
    auto part = sample_of({files[file]}, shares[file], training.seed);
    std::move(part.sentences.begin(), part.sentences.end(), std::back_inserter(all.sentences));
    all.num_seen += part.num_seen;
    all.num_bytes += part.num_bytes;
  }
  return all;
}

class SampleIterator : public sentencepiece::SentenceIterator {
 public:
  explicit SampleIterator(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t next_ = 0;
};

// SentencePiece's message in our words: what is wrong with the text or the size, and what to do.
std::string explain(const std::string& message, const VocabularyTraining& training) {
  // "Vocabulary size too high (8000). Please set it to a value <= 312."
  const std::string_view kTooHigh = "value <= ";
  if (const size_t at = message.find(kTooHigh); at != std::string::npos) {
    const int64_t most = std::atoll(message.c_str() + at + kTooHigh.size());
    return join("too little text for ", training.size, " pieces: it gives at most ", most, "; pass --size ", most,
                " or less, or give more text");
  }
  // "Vocabulary size is smaller than required_chars. 20 vs 97. ..."
  if (const size_t at = message.find("required_chars. "); at != std::string::npos) {
    const size_t versus = message.find(" vs ", at);
    const int64_t least = versus == std::string::npos ? 0 : std::atoll(message.c_str() + versus + 4);
    return join(training.size, " pieces are too few: the text's characters and the special pieces alone take ", least,
                "; pass --size ", least, " or more, or a lower --character-coverage");
  }
  return "SentencePiece cannot train on this text: " + message;
}

}  // namespace

void train_vocabulary(const VocabularyTraining& training) {
  SY_CHECK(training.size >= 8 && training.size <= kMaxPieces, "vocabulary size ", training.size, ": expected 8 to ",
           kMaxPieces, " pieces");
  SY_CHECK(training.character_coverage > 0.9 && training.character_coverage <= 1.0, "character coverage ",
           training.character_coverage, ": expected more than 0.9 and at most 1");
  SY_CHECK(training.exponent > 0.0 && training.exponent <= 1.0, "exponent ", training.exponent,
           ": expected more than 0 and at most 1 (mT5: 0.3)");
  // The suffix array of the text is indexed with 32 bits, one number a character.
  SY_CHECK(training.max_text_bytes >= 1000 && training.max_text_bytes <= (int64_t{1} << 30), "at most ",
           training.max_text_bytes, " bytes of text: expected 1000 to ", int64_t{1} << 30);
  const auto folder = training.out.has_parent_path() ? training.out.parent_path() : std::filesystem::path(".");
  SY_CHECK(std::filesystem::is_directory(folder), "cannot write ", training.out.string(), ": there is no folder ",
           folder.string());
  const auto start = std::chrono::steady_clock::now();
  const auto [sentences, num_seen, num_bytes] = sample_text(training);
  say("training ", training.size, " pieces on ", sentences.size(),
      sentences.size() < num_seen ? join(" of ", num_seen) : "", " sentences, ", (num_bytes + 999) / 1000, " kB ...");

  std::string model;
  SampleIterator iterator(sentences);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      std::unordered_map<std::string, std::string>{
          {"model_type", "unigram"},
          {"vocab_size", std::to_string(training.size)},
          {"character_coverage", join(training.character_coverage)},
          {"byte_fallback", training.byte_fallback ? "true" : "false"},
          {"pad_id", "0"},
          {"eos_id", "1"},
          {"unk_id", "2"},
          {"bos_id", "-1"},
          {"normalization_rule_name", "nmt_nfkc"},
          {"shuffle_input_sentence", "false"},
          {"num_threads", "4"},  // the order of sums, and so the result, depends on it
          {"minloglevel", "3"},
      },
      &iterator, &model);
  if (!status.ok()) throw Error(explain(status.error_message(), training));
  SY_CHECK(!interrupted(), "interrupted; no vocabulary was made");
  write_file_atomically(training.out, model);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  say("done in ", static_cast<int64_t>(seconds.count() * 10) / 10.0, " s: ", training.out.string());
}

}  // namespace switchyard
