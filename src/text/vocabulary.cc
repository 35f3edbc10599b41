#include "text/vocabulary.h"

#include <sentencepiece_processor.h>

#include <mutex>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "text/sentencepiece_model.h"

namespace switchyard {

using sentencepiece::SentencePieceProcessor;

namespace {

constexpr std::string_view kSentinelStart = "<extra_id_";

void load_processor(SentencePieceProcessor& processor, const std::string& model, const std::string& source) {
  const auto status = processor.LoadFromSerializedProto(model);
  SY_CHECK(status.ok(), source, ": SentencePiece cannot use this model: ", status.error_message());
}

struct SentinelMatch {
  size_t begin = 0, end = 0;  // bytes of the text
  int32_t number = 0;
};

// The first "<extra_id_N>" at or after `from` with N < num_sentinels and without leading zeros.
std::optional<SentinelMatch> find_sentinel(std::string_view text, size_t from, int32_t num_sentinels) {
  while (true) {
    const size_t begin = text.find(kSentinelStart, from);
    if (begin == std::string_view::npos) return std::nullopt;
    size_t at = begin + kSentinelStart.size();
    const size_t first_digit = at;
    int64_t number = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9' && at - first_digit < 9)
      number = number * 10 + (text[at++] - '0');
    const size_t num_digits = at - first_digit;
    const bool canonical = num_digits == 1 || (num_digits > 1 && text[first_digit] != '0');
    if (canonical && number < num_sentinels && at < text.size() && text[at] == '>') {
      return SentinelMatch{begin, at + 1, static_cast<int32_t>(number)};
    }
    from = begin + 1;
  }
}

// What SentencePiece's nmt_nfkc rules turn into a space.
bool starts_with_space(std::string_view text) {
  if (text.empty()) return false;
  if (text[0] == ' ' || (text[0] >= '\t' && text[0] <= '\r')) return true;
  for (const std::string_view space :
       {"\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
        "\u2009", "\u200A", "\u200B", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000", "\u2581", "\uFEFF"}) {
    if (text.starts_with(space)) return true;
  }
  return false;
}

void append_encoding(const SentencePieceProcessor& processor, std::string_view text, std::vector<int32_t>& ids) {
  std::vector<int> part;
  const auto status = processor.Encode(text, &part);
  SY_CHECK(status.ok(), "cannot encode the text \"", text.substr(0, 80), "\": ", status.error_message());
  ids.insert(ids.end(), part.begin(), part.end());
}

}  // namespace

struct Vocabulary::State {
  std::string bytes;
  SentencePieceModelInfo info;
  int32_t num_sentinels = 0;
  SentencePieceProcessor processor;  // with the sentinels as pieces
  // Only texts with sentinels need the second one, so it is made at first use.
  mutable std::once_flag continuing_once;
  mutable SentencePieceProcessor continuing_processor;

  const SentencePieceProcessor& continuing() const {
    std::call_once(continuing_once,
                   [&] { load_processor(continuing_processor, without_dummy_prefix(bytes), "vocabulary"); });
    return continuing_processor;
  }
};

Vocabulary::Vocabulary(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Vocabulary Vocabulary::load(const std::filesystem::path& path, int32_t num_sentinels) {
  return from_bytes(read_file(path, kMaxVocabularyBytes), num_sentinels, path.string());
}

Vocabulary Vocabulary::from_bytes(std::string bytes, int32_t num_sentinels, const std::string& source) {
  SY_CHECK(num_sentinels >= 0 && num_sentinels <= kMaxPieces, "number of sentinels ", num_sentinels, ": expected 0 to ",
           kMaxPieces);
  SY_CHECK(bytes.size() <= kMaxVocabularyBytes, source, ": ", bytes.size(), " bytes, expected at most ",
           kMaxVocabularyBytes);
  auto state = std::make_shared<State>();
  state->info = inspect_sentencepiece_model(bytes, source);
  const int32_t own = state->info.num_own_sentinels;
  state->num_sentinels = own > 0 ? own : num_sentinels;
  load_processor(state->processor, with_sentinels(bytes, own > 0 ? 0 : num_sentinels), source);
  state->bytes = std::move(bytes);
  return Vocabulary(std::move(state));
}

std::vector<int32_t> Vocabulary::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t from = 0;
  while (true) {
    const auto match = find_sentinel(text, from, state_->num_sentinels);
    std::string_view part = text.substr(from, match ? match->begin - from : std::string_view::npos);
    const bool merges_spaces = state_->info.remove_extra_whitespaces;
    if (match && !merges_spaces && part.ends_with(' ')) part.remove_suffix(1);
    // The dummy prefix stands for the space after a sentinel, which the normaliser would drop; where spaces are kept,
    // it would be one too many.
    const bool continuing = from > 0 && !(merges_spaces && starts_with_space(part));
    if (!part.empty()) append_encoding(continuing ? state_->continuing() : state_->processor, part, ids);
    if (!match) return ids;
    ids.push_back(sentinel_id(match->number));
    from = match->end;
  }
}

std::string Vocabulary::decode(std::span<const int32_t> ids) const {
  std::vector<int> known(ids.begin(), ids.end());
  for (int& id : known) {
    if (id < 0 || id >= size()) id = unk_id();
  }
  std::string text;
  const auto status = state_->processor.Decode(known, &text);
  SY_CHECK(status.ok(), "cannot decode ", ids.size(), " ids: ", status.error_message());
  return text;
}

int32_t Vocabulary::size() const { return state_->processor.GetPieceSize(); }
int32_t Vocabulary::num_sentinels() const { return state_->num_sentinels; }

int32_t Vocabulary::sentinel_id(int32_t number) const {
  SY_CHECK(number >= 0 && number < num_sentinels(), "no sentinel <extra_id_", number, ">: this vocabulary has ",
           num_sentinels());
  return size() - 1 - number;
}

int32_t Vocabulary::pad_id() const { return state_->processor.pad_id(); }
int32_t Vocabulary::eos_id() const { return state_->processor.eos_id(); }
int32_t Vocabulary::unk_id() const { return state_->processor.unk_id(); }

std::string Vocabulary::piece(int32_t id) const {
  if (id < 0 || id >= size()) id = unk_id();
  if (id >= size() - num_sentinels()) return join(kSentinelStart, size() - 1 - id, ">");
  return state_->processor.IdToPiece(id);
}

const std::string& Vocabulary::model_bytes() const { return state_->bytes; }

}  // namespace switchyard
