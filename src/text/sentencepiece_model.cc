#include "text/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace switchyard {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3, kModelSelfTest = 4,
                   kModelDenormalizer = 5;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
enum PieceType : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
constexpr uint32_t kTrainerType = 3, kTrainerByteFallback = 35, kTrainerUnkSurface = 44;
constexpr uint32_t kNormalizerCharsmap = 2, kNormalizerDummyPrefix = 3, kNormalizerRemoveExtra = 4;
// Bytes of a piece, of what an unknown id prints, and of what one rule inserts: a text grows by no more than this
// factor.
constexpr size_t kMaxStringBytes = 4096;
constexpr char kSpaceSymbol[] = "\xe2\x96\x81";  // U+2581, SentencePiece's mark of a space

struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;
  uint64_t value = 0;      // wire types 0, 1, 5
  std::string_view bytes;  // wire type 2
  std::string_view whole;  // tag included
};

// Walks the fields of one protobuf message.
class FieldReader {
 public:
  FieldReader(std::string_view message, const std::string& source) : rest_(message), source_(source) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const char* start = rest_.data();
    const uint64_t tag = varint();
    field = {};
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire_type = static_cast<uint32_t>(tag & 7);
    check(field.number != 0);
    switch (field.wire_type) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2: {
        const uint64_t length = varint();
        check(length <= rest_.size());
        field.bytes = rest_.substr(0, length);
        rest_.remove_prefix(length);
        break;
      }
      case 5:
        field.value = fixed(4);
        break;
      default:
        check(false);
    }
    field.whole = {start, static_cast<size_t>(rest_.data() - start)};
    return true;
  }

 private:
  void check(bool good) const {
    SY_CHECK(good, source_,
             ": not a SentencePiece model, or damaged; expected the spiece.model of a T5, mT5 or Switch "
             "model, or one made by `switchyard vocab train`. Fetch or make it again");
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      check(!rest_.empty());
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    check(false);
    return 0;
  }
  uint64_t fixed(size_t size) {
    check(rest_.size() >= size);
    uint64_t value = 0;
    std::memcpy(&value, rest_.data(), size);
    rest_.remove_prefix(size);
    return value;
  }

  std::string_view rest_;
  const std::string& source_;
};

// Checks a compiled table of normalisation rules: uint32 size of the trie, the double array (Darts-clone units), then
// zero-ended strings. Every walk must stay inside the array, end, and match at most 32 rules, the library's buffer.
void check_charsmap(std::string_view blob, const std::string& source) {
  const auto check = [&](bool good) {
    SY_CHECK(good, source, ": the normalisation rules are damaged; fetch or make the vocabulary again");
  };
  if (blob.empty()) return;
  uint32_t trie_bytes = 0;
  check(blob.size() > sizeof(trie_bytes));
  std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  blob.remove_prefix(sizeof(trie_bytes));
  check(trie_bytes >= 4 && trie_bytes % 4 == 0 && trie_bytes < blob.size() && blob.back() == '\0');
  std::vector<uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), blob.data(), trie_bytes);
  const std::string_view strings = blob.substr(trie_bytes);

  constexpr int kMaxMatches = 32;
  const auto children_of = [&](uint64_t index) {
    const uint32_t unit = units[index];
    const uint64_t offset = (unit >> 10) << ((unit & 0x200) >> 6);
    return index ^ offset;
  };
  // Depth-first over the reachable units; the trie shares tails, so results are kept. -1: not seen, -2: on the path.
  std::vector<int> matches(units.size(), -1);
  struct Visit {
    uint64_t index;
    int next_byte = 0;
    int most_below = 0;
  };
  std::vector<Visit> path{{0}};
  matches[0] = -2;
  while (!path.empty()) {
    Visit& visit = path.back();
    const uint64_t children = children_of(visit.index);
    check((children | 0xFF) < units.size());
    const bool has_leaf = visit.index != 0 && (units[visit.index] & 0x100) != 0;
    if (visit.next_byte == 0 && has_leaf) {
      const uint64_t begin = units[children] & 0x7FFFFFFF;
      check(begin < strings.size() && strings.find('\0', begin) - begin <= kMaxStringBytes);
    }
    bool descended = false;
    while (visit.next_byte < 256) {
      const auto byte = static_cast<uint32_t>(visit.next_byte);
      const uint64_t child = children ^ byte;
      if ((units[child] & 0x800000FF) != byte) {
        ++visit.next_byte;
        continue;
      }
      if (matches[child] == -1) {
        matches[child] = -2;
        path.push_back({child});
        descended = true;
        break;
      }
      check(matches[child] != -2);
      visit.most_below = std::max(visit.most_below, matches[child]);
      ++visit.next_byte;
    }
    if (descended) continue;
    const int total = visit.most_below + (has_leaf ? 1 : 0);
    check(total <= kMaxMatches);
    matches[visit.index] = total;
    path.pop_back();
  }
}

void read_normalizer(std::string_view message, const std::string& source, SentencePieceModelInfo* info) {
  FieldReader reader(message, source);
  Field field;
  while (reader.next(field)) {
    if (field.number == kNormalizerCharsmap) check_charsmap(field.bytes, source);
    if (info == nullptr) continue;
    if (field.number == kNormalizerDummyPrefix) info->add_dummy_prefix = field.value != 0;
    if (field.number == kNormalizerRemoveExtra) info->remove_extra_whitespaces = field.value != 0;
  }
}

void check_string(std::string_view text, const std::string& source) {
  SY_CHECK(text.size() <= kMaxStringBytes, source, ": a piece of ", text.size(), " bytes, expected at most ",
           kMaxStringBytes);
}

void read_trainer(std::string_view message, const std::string& source) {
  FieldReader reader(message, source);
  Field field;
  while (reader.next(field)) {
    if (field.number == kTrainerUnkSurface) check_string(field.bytes, source);
  }
}

std::string_view read_piece(std::string_view message, const std::string& source) {
  FieldReader reader(message, source);
  Field field;
  std::string_view text;
  while (reader.next(field)) {
    if (field.number == kPieceText) text = field.bytes;
    check_string(text, source);
    // The library's trie ends keys at a zero byte and the program with them.
    SY_CHECK(text.find('\0') == text.npos, source, ": a piece holds a zero byte; the file is damaged");
    if (field.number == kPieceScore) {
      const float score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
      SY_CHECK(std::isfinite(score), source, ": piece \"", text,
               "\" has a score that is not finite; the file is damaged");
    }
  }
  return text;
}

void append_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>((value & 0x7F) | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void append_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  append_varint(out, field << 3 | 2);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_number(std::string& out, uint32_t field, uint64_t value) {
  append_varint(out, field << 3);
  append_varint(out, value);
}

bool is_byte_piece(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
         text.find_first_not_of("0123456789ABCDEF", 3) == 5;
}

std::string without_self_test(std::string_view bytes) {
  const std::string source = "vocabulary";
  FieldReader reader(bytes, source);
  Field field;
  std::string out;
  out.reserve(bytes.size() + 4096);
  while (reader.next(field)) {
    if (field.number != kModelSelfTest) out += field.whole;
  }
  return out;
}

}  // namespace

SentencePieceModelInfo inspect_sentencepiece_model(std::string_view bytes, const std::string& source) {
  SY_CHECK(!bytes.empty(), source, ": the file is empty; expected a SentencePiece model");
  SentencePieceModelInfo info;
  FieldReader reader(bytes, source);
  Field field;
  std::vector<std::string_view> pieces;
  bool has_trainer = false;
  while (reader.next(field)) {
    has_trainer |= field.number == kModelTrainer;
    if (field.number == kModelPieces) pieces.push_back(read_piece(field.bytes, source));
    if (field.number == kModelTrainer) read_trainer(field.bytes, source);
    if (field.number == kModelNormalizer) read_normalizer(field.bytes, source, &info);
    if (field.number == kModelDenormalizer) read_normalizer(field.bytes, source, nullptr);
    SY_CHECK(pieces.size() <= static_cast<size_t>(kMaxPieces), source, ": more than ", kMaxPieces, " pieces");
  }
  SY_CHECK(!pieces.empty(), source, ": no pieces in it; expected a SentencePiece model (spiece.model)");
  // Every trainer writes its settings behind the pieces: a file cut between two pieces would otherwise still be a
  // message.
  SY_CHECK(has_trainer, source, ": it ends after ", pieces.size(),
           " pieces, without the trainer's settings; the file is cut short");
  info.num_pieces = static_cast<int32_t>(pieces.size());
  while (info.num_own_sentinels < info.num_pieces) {
    std::string_view piece = pieces[static_cast<size_t>(info.num_pieces - 1 - info.num_own_sentinels)];
    if (piece.starts_with(kSpaceSymbol)) piece.remove_prefix(std::strlen(kSpaceSymbol));
    if (piece != join("<extra_id_", info.num_own_sentinels, ">")) break;
    ++info.num_own_sentinels;
  }
  return info;
}

PieceList list_pieces(std::string_view bytes, const std::string& source) {
  PieceList list;
  FieldReader reader(bytes, source);
  for (Field field; reader.next(field);) {
    FieldReader inner(field.bytes, source);
    Field part;
    if (field.number == kModelPieces) {
      auto& piece = list.pieces.emplace_back();
      while (inner.next(part)) {
        if (part.number == kPieceText) piece.text = part.bytes;
        if (part.number == kPieceScore) piece.score = std::bit_cast<float>(static_cast<uint32_t>(part.value));
        if (part.number == kPieceType) piece.type = static_cast<int32_t>(part.value);
      }
    } else if (field.number == kModelNormalizer) {
      while (inner.next(part))
        if (part.number == kNormalizerCharsmap) list.normalization_rules = part.bytes;
    }
  }
  return list;
}

std::string with_sentinels(std::string_view bytes, int32_t count) {
  std::string model = without_self_test(bytes);
  for (int32_t number = count - 1; number >= 0; --number) {
    const std::string text = join(kSpaceSymbol, "<extra_id_", number, ">");
    std::string piece("\x0a", 1);
    append_varint(piece, text.size());
    piece += text;
    piece += std::string("\x15\0\0\0\0\x18\x04", 7);  // score 0, type USER_DEFINED
    model.push_back('\x0a');
    append_varint(model, piece.size());
    model += piece;
  }
  return model;
}

std::string make_unigram_model(const std::vector<std::pair<std::string, double>>& pieces, int32_t unk_id,
                               bool byte_fallback, std::string_view normalization_rules) {
  std::string model;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const auto& [text, score] = pieces[id];
    const bool is_control = text == "<pad>" || text == "</s>" || text == "<s>";
    const uint64_t type = id == static_cast<size_t>(unk_id)      ? kUnknown
                          : is_control                           ? kControl
                          : byte_fallback && is_byte_piece(text) ? kByte
                                                                 : kNormal;
    std::string piece;
    append_bytes(piece, kPieceText, text);
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(score));
    append_varint(piece, kPieceScore << 3 | 5);
    for (int shift = 0; shift < 32; shift += 8) piece.push_back(static_cast<char>(bits >> shift));
    append_number(piece, kPieceType, type);
    append_bytes(model, kModelPieces, piece);
  }
  std::string trainer, normalizer;
  append_number(trainer, kTrainerType, 1);  // unigram
  append_number(trainer, kTrainerByteFallback, byte_fallback ? 1 : 0);
  append_bytes(model, kModelTrainer, trainer);
  append_bytes(normalizer, kNormalizerCharsmap, normalization_rules);
  append_bytes(model, kModelNormalizer, normalizer);
  return model;
}

std::string without_dummy_prefix(std::string_view bytes) {
  // A message field that comes twice is merged, the later values ruling.
  return without_self_test(bytes) + std::string("\x1a\x02\x18\x00", 4);
}

}  // namespace switchyard
