// The body of a request for a completion, as a server reads it, and the answer to what was taken.
#include "harness.h"
#include "serve/completion.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto vocabulary = Vocabulary::load(FUZZ_VOCABULARY, 3);
  constexpr RequestLimits kLimits{.prompt_bytes = 4096, .prompt_tokens = 512, .max_tokens = 64, .rows = 4};
  expect_no_harm([&] {
    const auto completion = read_completion(std::string(as_text(data, size)), vocabulary, kLimits);
    std::vector<Answered> answers;
    for (const auto& request : completion.requests) {
      // What the limits promise to whoever runs it.
      require(!request.ids.empty() || request.prompt.empty());
      require(request.ids.size() <= kLimits.prompt_tokens && request.prefix.size() <= kLimits.prompt_tokens);
      require(request.search.max_tokens >= 1 && request.search.max_tokens <= kLimits.max_tokens);
      require(request.search.num_results >= 1 && request.search.num_results <= kLimits.rows);
      require(request.search.beams.num_beams >= 1 && request.search.beams.num_beams <= kLimits.rows);
      require(completion.generates || !request.prefix.empty());
      auto& answer = answers.emplace_back(Answered{.request = request, .outputs = decoder_prompt_alone(request)});
      if (completion.logprobs)
        answer.scores = {
            std::vector<TokenScore>(request.prefix.size(), {.log_probability = -1.0, .likeliest = {{3, -1.0}}})};
    }
    const auto answer = completion_json({"id", "model", 0}, completion, answers, vocabulary);
    require(answer.at("choices").size() == completion.requests.size());
    static_cast<void>(answer.dump(-1, ' ', false, Json::error_handler_t::replace));
  });
  return 0;
}
