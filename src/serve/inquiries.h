// Questions about texts that generate nothing: tokens, vectors, and the experts that tokens take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "generate/request.h"
#include "model/transformer.h"

namespace switchyard {

// All of them read a request's body and throw Error, naming the key, for what is not expected there.

Json read_object(const std::string& body);

// {"content": text} to {"tokens": [ids]}, without EOS; and back.
Json tokenize(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits);
Json detokenize(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits);

// {"input" or "content": a text, a list of texts, ids or lists of ids; "pooling": "mean" or "none"; "encoding_format":
// "float" or "base64" (of little-endian f32)}.
struct EmbeddingQuestion {
  std::vector<std::vector<int32_t>> inputs;  // EOS at a text's end
  bool of_each_token = false;                // pooling none
  bool base64 = false;
};
EmbeddingQuestion read_embedding_question(const std::string& body, const Vocabulary& vocabulary,
                                          const RequestLimits& limits);

// The encoder's states of each input, without padding: their mean [d_model], or each of them [length, d_model]. f32 on
// the CPU. To be called on the thread that computes.
std::vector<at::Tensor> embed(const ModelConfig& config, const ComputeWeights& weights,
                              const EmbeddingQuestion& question);

// OpenAI's answer, of mean vectors; and llama.cpp's, of either kind.
Json openai_embeddings_json(const EmbeddingQuestion& question, const std::vector<at::Tensor>& vectors,
                            const std::string& model);
Json embeddings_json(const std::vector<at::Tensor>& vectors);

// {"content": text or ids; "output": text or ids, what the decoder would have written}.
struct RoutingQuestion {
  std::vector<int32_t> input;   // EOS at a text's end
  std::vector<int32_t> output;  // may be empty
};
RoutingQuestion read_routing_question(const std::string& body, const Vocabulary& vocabulary,
                                      const RequestLimits& limits);

// {"encoder": {"tokens": [{"id", "piece"}], "layers": [{"layer", "num_experts", "experts", "gates"}]}, "decoder":
// same}. experts: of each token its experts by falling gate, none where it was dropped; gates: of the first of them.
// The decoder's tokens are its inputs: the start token and all of the output but its last. As in generation, no token
// is dropped there. To be called on the thread that computes.
Json routing_json(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary& vocabulary,
                  const RoutingQuestion& question);

// What a server is, for its clients: llama.cpp's keys, and under "switchyard" the model's shape and its routing in
// words.
struct Properties {
  std::string model;
  int64_t slots = 0, queue = 0, max_length = 0;
  RequestLimits limits = {};
};
Json props_json(const Properties& properties, const ModelConfig& config, const Vocabulary& vocabulary);

}  // namespace switchyard
