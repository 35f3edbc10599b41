// tokenizer.json: its added tokens, and the vocabulary that it holds.
#include "text/tokenizer_json.h"

#include "harness.h"
#include "text/vocabulary.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expect_no_harm([&] {
    auto tokenizer = read_tokenizer_json(as_text(data, size), "input");
    auto model = sentencepiece_model_of(tokenizer, "input");
    auto added = tokenizer.added_tokens;
    const auto vocabulary = Vocabulary::from_bytes(std::move(model), 3, "input", std::move(added));
    for (const auto& token : vocabulary.added_tokens()) {
      const auto ids = vocabulary.encode(token.content);
      require(vocabulary.piece(token.id) == token.content && token.id < vocabulary.size());
      require(vocabulary.decode(std::vector{token.id}) == token.content);
      for (const int32_t id : ids) require(id >= 0 && id < vocabulary.size());
    }
    expect_no_harm([&] { vocabulary.decode(vocabulary.encode("a b<extra_id_1> ab {x}")); });
  });
  return 0;
}
