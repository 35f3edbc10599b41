// `switchyard vocab`: make a vocabulary, and use one on standard input.
#include <charconv>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "cli/commands.h"
#include "text/utf8.h"
#include "text/vocabulary.h"
#include "text/vocabulary_training.h"

namespace switchyard {
namespace {

void check_output() { SY_CHECK(std::cout.good(), "cannot write to standard output"); }

void write_line(const std::string& line) {
  std::cout << line << '\n';
  check_output();
}

void encode_lines(const std::filesystem::path& vocab) {
  const auto vocabulary = Vocabulary::load(resolve_vocabulary(vocab));
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    const size_t at = find_invalid_utf8(line);
    SY_CHECK(at == line.size(), "standard input:", number, ": not UTF-8 at byte ", at + 1,
             " of the line; re-encode it, for example with `iconv -f LATIN1 -t UTF-8`");
    std::string ids;
    for (const int32_t id : vocabulary.encode(line)) ids += (ids.empty() ? "" : " ") + std::to_string(id);
    write_line(ids);
  }
  std::cout.flush();
  check_output();
}

std::vector<int32_t> parse_ids(std::string_view line, int64_t number) {
  std::vector<int32_t> ids;
  while (true) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return ids;
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
    int32_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    SY_CHECK(error == std::errc() && end == word.data() + word.size() && id >= 0, "standard input:", number, ": \"",
             word.substr(0, 40), "\" is not a token id; expected whole numbers from 0, separated by spaces");
    ids.push_back(id);
    line.remove_prefix(word.size());
  }
}

void decode_lines(const std::filesystem::path& vocab) {
  const auto vocabulary = Vocabulary::load(resolve_vocabulary(vocab));
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    write_line(vocabulary.decode(parse_ids(line, number)));
  }
  std::cout.flush();
  check_output();
}

}  // namespace

void add_vocab(CLI::App& app) {
  auto* vocab = app.add_subcommand("vocab", "Train a SentencePiece vocabulary; encode and decode text with one");
  vocab->require_subcommand(1);
  vocab->footer(
      "Examples:\n"
      "  switchyard vocab train --text corpus.jsonl.gz --size 8000 --out spiece.model\n"
      "  echo 'A walk in the <extra_id_0>.' | switchyard vocab encode --vocab spiece.model");

  auto training = std::make_shared<VocabularyTraining>();
  auto* train = vocab->add_subcommand("train", "Train a unigram vocabulary with T5's ids (pad 0, eos 1, unk 2)");
  train
      ->add_option("--text", training->text,
                   "text files (.txt, .jsonl, C4's .json, also .gz or .zst), folders, or - for standard input")
      ->required();
  train->add_option("--size", training->size, "pieces; the 100 sentinels come on top")->capture_default_str();
  train->add_option("--out", training->out, "where to put the model")->capture_default_str();
  train
      ->add_option("--character-coverage", training->character_coverage,
                   "share of characters kept; 1 for small alphabets")
      ->capture_default_str();
  train->add_option("--max-text-bytes", training->max_text_bytes, "of more text, a sample of this size is used")
      ->capture_default_str();
  train
      ->add_option("--exponent", training->exponent,
                   "files of n bytes share out that limit by n^exponent: mT5's 0.3 over one file a language")
      ->capture_default_str();
  train->add_flag("--byte-fallback", training->byte_fallback,
                  "256 of the pieces are bytes, so that no text has unknown characters");
  train->add_option("--seed", training->seed, "of that sample")->capture_default_str();
  train->footer("Example:\n  switchyard vocab train --text books/ extra.jsonl.gz --size 32000 --out spiece.model");
  train->callback([training] { train_vocabulary(*training); });

  auto model = std::make_shared<std::filesystem::path>();
  auto* encode = vocab->add_subcommand("encode", "Lines of text on standard input to lines of token ids");
  encode->add_option("--vocab", *model, "the vocabulary: a spiece.model, or a model directory")->required();
  encode->footer("Example:\n  echo 'this is a test' | switchyard vocab encode --vocab spiece.model");
  encode->callback([model] { encode_lines(*model); });

  auto* decode = vocab->add_subcommand("decode", "Lines of token ids on standard input to lines of text");
  decode->add_option("--vocab", *model, "the vocabulary: a spiece.model, or a model directory")->required();
  decode->footer("Example:\n  echo '11 8 6 3 8 6' | switchyard vocab decode --vocab spiece.model");
  decode->callback([model] { decode_lines(*model); });
}

}  // namespace switchyard
