#include "text/vocabulary.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/config.h"
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

// A sentinel or an added token in a text.
struct Match {
  size_t begin = 0, end = 0;  // bytes of the text
  int32_t id = 0;
};

// N of "<extra_id_N>", without leading zeros, at the front of `text`; -1 if it is none.
int64_t sentinel_in_front(std::string_view text) {
  if (!text.starts_with(kSentinelStart)) return -1;
  const size_t first_digit = kSentinelStart.size();
  size_t at = first_digit;
  int64_t number = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9' && at - first_digit < 9)
    number = number * 10 + (text[at++] - '0');
  const size_t num_digits = at - first_digit;
  const bool canonical = num_digits == 1 || (num_digits > 1 && text[first_digit] != '0');
  return canonical && at < text.size() && text[at] == '>' ? number : -1;
}

// Every byte beyond ASCII counts as part of a letter.
bool is_word_byte(char letter) {
  return (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         letter == '_' || (letter & 0x80) != 0;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word_byte(text[begin - 1])) && (end == text.size() || !is_word_byte(text[end]));
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
  std::vector<AddedToken> added;  // by id, without sentinels and control pieces
  std::unordered_map<int32_t, size_t> added_by_id;
  std::array<std::vector<size_t>, 256> added_by_first_byte;  // longest first
  SentencePieceProcessor processor;                          // with the sentinels as pieces
  // Only texts with sentinels need the second one, so it is made at first use.
  mutable std::once_flag continuing_once;
  mutable SentencePieceProcessor continuing_processor;

  const SentencePieceProcessor& continuing() const {
    std::call_once(continuing_once,
                   [&] { load_processor(continuing_processor, without_dummy_prefix(bytes), "vocabulary"); });
    return continuing_processor;
  }

  int32_t num_pieces() const { return processor.GetPieceSize(); }  // sentinels included

  const AddedToken* find_added(int32_t id) const {
    const auto found = added_by_id.find(id);
    return found == added_by_id.end() ? nullptr : &added[found->second];
  }

  // The longest added token or sentinel that begins the text at `begin`.
  std::optional<Match> match_at(std::string_view text, size_t begin) const {
    const auto rest = text.substr(begin);
    std::optional<Match> match;
    if (const int64_t number = sentinel_in_front(rest); number >= 0 && number < num_sentinels)
      match = {begin, begin + rest.find('>') + 1, num_pieces() - 1 - static_cast<int32_t>(number)};
    for (const size_t n : added_by_first_byte[static_cast<unsigned char>(rest[0])]) {
      const auto& [id, content, single_word] = added[n];
      const size_t end = begin + content.size();
      if (match && match->end >= end) break;
      if (rest.starts_with(content) && (!single_word || stands_alone(text, begin, end))) return Match{begin, end, id};
    }
    return match;
  }

  std::optional<Match> find_match(std::string_view text, size_t from) const {
    for (; from < text.size(); ++from) {
      if (text[from] != kSentinelStart[0] && added_by_first_byte[static_cast<unsigned char>(text[from])].empty())
        continue;
      if (const auto match = match_at(text, from)) return match;
    }
    return std::nullopt;
  }

  void take_added_tokens(std::vector<AddedToken> tokens);
  std::string decode_pieces(const std::vector<int>& ids, bool is_first) const;
};

namespace {

// How many sentinels a tokenizer.json has behind the `num_pieces` pieces, where <extra_id_0> must be the last of them.
// One that says nothing of them leaves the `usual` number, if its own tokens leave room.
int32_t count_sentinels(const std::vector<AddedToken>& tokens, int32_t num_pieces, int32_t usual,
                        const std::string& source) {
  std::vector<std::pair<int64_t, int32_t>> sentinels;  // number, id
  bool has_room = true;
  for (const auto& token : tokens) {
    const int64_t number = sentinel_in_front(token.content);
    if (number >= 0 && token.content == join(kSentinelStart, number, ">")) sentinels.emplace_back(number, token.id);
    has_room &= token.id < num_pieces || token.id >= num_pieces + usual;
  }
  if (sentinels.empty()) return has_room ? usual : 0;
  const auto count = static_cast<int32_t>(sentinels.size());
  for (const auto& [number, id] : sentinels)
    SY_CHECK(number < count && id == num_pieces + count - 1 - number, source, ": added_tokens: <extra_id_", number,
             "> has id ", id, ", expected ", count, " sentinels from <extra_id_", count - 1, "> = ", num_pieces,
             " to <extra_id_0> = ", num_pieces + count - 1, ", behind the vocabulary's ", num_pieces, " pieces");
  return count;
}

// The number of sentinels behind the pieces in a tokenizer_config.json, `usual` if it does not say.
int32_t extra_ids_of(const std::filesystem::path& path, int32_t usual) {
  if (!std::filesystem::exists(path)) return usual;
  const Json config = parse_json(read_file(path, kMaxTokenizerJsonBytes), path.string());
  if (!config.is_object() || !config.contains("extra_ids") || config.at("extra_ids").is_null()) return usual;
  const Json& count = config.at("extra_ids");
  SY_CHECK(count.is_number_integer() && count >= 0 && count <= kMaxPieces, path.string(), ": extra_ids is ",
           count.dump().substr(0, 64), ", expected 0 to ", kMaxPieces);
  return count.get<int32_t>();
}

}  // namespace

void Vocabulary::State::take_added_tokens(std::vector<AddedToken> tokens) {
  for (auto& token : tokens) {
    const bool is_piece = token.id < num_pieces();
    if (is_piece && token.id >= num_pieces() - num_sentinels) continue;
    // What the model calls <pad>, </s> and <unk> stays text in texts, as SentencePiece has it.
    const bool is_own = is_piece && processor.IdToPiece(token.id) == token.content;
    if (is_own && (processor.IsControl(token.id) || processor.IsUnknown(token.id))) continue;
    added_by_id[token.id] = added.size();
    added_by_first_byte[static_cast<unsigned char>(token.content[0])].push_back(added.size());
    added.push_back(std::move(token));
  }
  for (auto& same_start : added_by_first_byte)
    std::stable_sort(same_start.begin(), same_start.end(), [&](size_t left, size_t right) {
      return added[left].content.size() > added[right].content.size();
    });
}

// Text of a run of pieces; its leading space only where something stands before it.
std::string Vocabulary::State::decode_pieces(const std::vector<int>& ids, bool is_first) const {
  const auto decode = [&](const std::vector<int>& run) {
    std::string text;
    const auto status = processor.Decode(run, &text);
    SY_CHECK(status.ok(), "cannot decode ", run.size(), " ids: ", status.error_message());
    return text;
  };
  if (is_first) return decode(ids);
  std::vector<int> run{processor.unk_id()};
  const size_t skipped = decode(run).size();
  run.insert(run.end(), ids.begin(), ids.end());
  const std::string text = decode(run);
  return text.substr(std::min(skipped, text.size()));
}

Vocabulary::Vocabulary(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Vocabulary Vocabulary::load(const std::filesystem::path& path, int32_t num_sentinels) {
  if (!std::filesystem::is_directory(path))
    return from_bytes(read_file(path, kMaxVocabularyBytes), num_sentinels, path.string());
  const auto model = path / "spiece.model", json = path / "tokenizer.json";
  const bool has_model = std::filesystem::exists(model), has_json = std::filesystem::exists(json);
  SY_CHECK(has_model || has_json, path.string(),
           ": the model has no vocabulary: neither spiece.model nor tokenizer.json is there");
  num_sentinels = extra_ids_of(path / "tokenizer_config.json", num_sentinels);
  TokenizerJson tokenizer;
  if (has_json) tokenizer = read_tokenizer_json(read_file(json, kMaxTokenizerJsonBytes), json.string());
  const std::string source = (has_model ? model : json).string();
  auto bytes = has_model ? read_file(model, kMaxVocabularyBytes) : sentencepiece_model_of(tokenizer, source);
  return from_bytes(std::move(bytes), num_sentinels, source, std::move(tokenizer.added_tokens));
}

Vocabulary Vocabulary::from_bytes(std::string bytes, int32_t num_sentinels, const std::string& source,
                                  std::vector<AddedToken> added_tokens) {
  SY_CHECK(num_sentinels >= 0 && num_sentinels <= kMaxPieces, "number of sentinels ", num_sentinels, ": expected 0 to ",
           kMaxPieces);
  SY_CHECK(bytes.size() <= kMaxVocabularyBytes, source, ": ", bytes.size(), " bytes, expected at most ",
           kMaxVocabularyBytes);
  auto state = std::make_shared<State>();
  state->info = inspect_sentencepiece_model(bytes, source);
  const int32_t own = state->info.num_own_sentinels;
  state->num_sentinels = own > 0 ? own : count_sentinels(added_tokens, state->info.num_pieces, num_sentinels, source);
  load_processor(state->processor, with_sentinels(bytes, own > 0 ? 0 : state->num_sentinels), source);
  state->bytes = std::move(bytes);
  state->take_added_tokens(std::move(added_tokens));
  return Vocabulary(std::move(state));
}

std::vector<int32_t> Vocabulary::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t from = 0;
  while (true) {
    const auto match = state_->find_match(text, from);
    std::string_view part = text.substr(from, match ? match->begin - from : std::string_view::npos);
    const bool merges_spaces = state_->info.remove_extra_whitespaces;
    if (match && !merges_spaces && part.ends_with(' ')) part.remove_suffix(1);
    // The dummy prefix stands for the space after a sentinel, which the normaliser would drop; where spaces are kept,
    // it would be one too many.
    const bool continuing = from > 0 && !(merges_spaces && starts_with_space(part));
    if (!part.empty()) append_encoding(continuing ? state_->continuing() : state_->processor, part, ids);
    if (!match) return ids;
    ids.push_back(match->id);
    from = match->end;
  }
}

std::string Vocabulary::decode(std::span<const int32_t> ids) const {
  std::string text;
  std::vector<int> run;
  bool is_first = true;
  const auto end_run = [&] {
    if (!run.empty()) text += state_->decode_pieces(run, is_first);
    is_first = false;
    run.clear();
  };
  for (const int32_t id : ids) {
    if (const auto* token = state_->find_added(id)) {
      end_run();
      text += token->content;
    } else {
      run.push_back(id < 0 || id >= state_->num_pieces() ? unk_id() : id);
    }
  }
  end_run();
  return text;
}

int32_t Vocabulary::size() const {
  const int32_t pieces = state_->num_pieces();
  return state_->added.empty() ? pieces : std::max(pieces, state_->added.back().id + 1);
}
int32_t Vocabulary::num_sentinels() const { return state_->num_sentinels; }

int32_t Vocabulary::sentinel_id(int32_t number) const {
  SY_CHECK(number >= 0 && number < num_sentinels(), "no sentinel <extra_id_", number, ">: this vocabulary has ",
           num_sentinels());
  return state_->num_pieces() - 1 - number;
}

int32_t Vocabulary::sentinel_number(int32_t id) const {
  const int32_t number = state_->num_pieces() - 1 - id;
  return number >= 0 && number < num_sentinels() ? number : -1;
}

int32_t Vocabulary::pad_id() const { return state_->processor.pad_id(); }
int32_t Vocabulary::eos_id() const { return state_->processor.eos_id(); }
int32_t Vocabulary::unk_id() const { return state_->processor.unk_id(); }

std::string Vocabulary::piece(int32_t id) const {
  if (const auto* token = state_->find_added(id)) return token->content;
  if (const int32_t number = sentinel_number(id); number >= 0) return join(kSentinelStart, number, ">");
  return state_->processor.IdToPiece(id < 0 || id >= state_->num_pieces() ? unk_id() : id);
}

const std::string& Vocabulary::model_bytes() const { return state_->bytes; }
const std::vector<AddedToken>& Vocabulary::added_tokens() const { return state_->added; }

}  // namespace switchyard
