#include "generate/session.h"

#include <ATen/ops/cat.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "generate/prompt.h"
#include "generate/stop_strings.h"
#include "ops/product.h"

namespace switchyard {

Session::Session(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary* vocabulary,
                 const SessionOptions& options)
    : config_(config),
      weights_(weights),
      vocabulary_(vocabulary),
      options_(options),
      cache_(weights, options.rows, options.max_length) {
  check_decoder(config);
}

uint64_t Session::submit(Request request, Listener listener) {
  const auto& search = request.search;
  validate(search);
  check_prompt(request.ids, config_.vocab_size);
  check_ids(request.prefix, config_.vocab_size, "prefix");
  for (const auto& word : search.rules.bad_words) check_ids(word, config_.vocab_size, "bad word");
  SY_CHECK(request.stop.empty() || vocabulary_ != nullptr, "stop strings are about text, and there is no vocabulary");
  const int64_t length = static_cast<int64_t>(request.prefix.size()) + search.max_tokens;
  SY_CHECK(length <= options_.max_length, "prefix and maximum of tokens: ", length, " positions; at most ",
           options_.max_length, " are held");
  SY_CHECK(most_rows(search) <= options_.rows, "beams or samples ", most_rows(search), ": at most ", options_.rows,
           " are decoded together");
  waiting_.push_back({.id = next_id_, .request = std::move(request), .listener = std::move(listener)});
  return next_id_++;
}

bool Session::cancel(uint64_t id) {
  const auto has_id = [id](const Running& request) { return request.id == id; };
  if (std::erase_if(waiting_, has_id) > 0) return true;
  const auto found = std::find_if(running_.begin(), running_.end(), has_id);
  if (found == running_.end()) return false;
  cache_.replace_rows(found->slots, {});
  running_.erase(found);
  return true;
}

bool Session::is_waiting(uint64_t id) const {
  return std::any_of(waiting_.begin(), waiting_.end(), [id](const Running& request) { return request.id == id; });
}

bool Session::step() {
  const c10::InferenceMode inference;
  if (is_idle()) return false;
  try {
    start_waiting();
    advance_all();
  } catch (...) {
    for (const auto& request : running_) cache_.replace_rows(request.slots, {});
    running_.clear();
    throw;
  }
  tell();
  return true;
}

// First come, first served: a request of many rows is not overtaken by smaller ones.
void Session::start_waiting() {
  int64_t rows = 0;
  for (const auto& request : running_) rows += most_rows(request.request.search);
  std::vector<Running*> starting;
  while (!waiting_.empty() && rows + most_rows(waiting_.front().request.search) <= options_.rows) {
    running_.splice(running_.end(), waiting_, waiting_.begin());
    starting.push_back(&running_.back());
    rows += most_rows(running_.back().request.search);
  }
  std::vector<std::span<const int32_t>> prompts;
  for (const auto* request : starting) prompts.emplace_back(request->request.ids);
  const auto encoded = encode_prompts(config_, weights_, prompts, options_.on_routing);
  for (size_t n = 0; n < starting.size(); ++n) start(*starting[n], encoded[n]);
}

void Session::start(Running& running, const EncodedPrompt& encoded) {
  const auto& request = running.request;
  const auto device = weights_.output.device();
  running.slots = cache_.add_rows(weights_, encoded.hidden, encoded.mask);
  running.next = {request.search.start_id};
  if (!request.prefix.empty()) {
    // All of it at once but the last token, whose logits the search wants.
    std::vector<int32_t> inputs = {request.search.start_id};
    inputs.insert(inputs.end(), request.prefix.begin(), request.prefix.end() - 1);
    decode(running.slots, row_tensor(inputs, device));
    running.next = {request.prefix.back()};
  }
  SearchHooks hooks;
  if (!request.stop.empty())
    hooks.stops = [stops = StopStrings(request.stop, *vocabulary_)](std::span<const int32_t> output) {
      return stops.contained_in(output);
    };
  if (running.listener.on_token)
    hooks.on_token = [&running](size_t sample, int32_t id) { running.tokens.emplace_back(sample, id); };
  running.search = start_search(request.search, request.prefix, std::move(hooks));
}

at::Tensor Session::decode(const std::vector<int64_t>& slots, const at::Tensor& ids) {
  std::vector<SparseLayer> layers;
  auto hidden = decode_step(config_, weights_, cache_, slots, ids, options_.on_routing ? &layers : nullptr);
  if (options_.on_routing) options_.on_routing(layers);
  return hidden;
}

void Session::advance_all() {
  std::vector<int64_t> slots;
  std::vector<int32_t> ids;
  for (const auto& request : running_) {
    slots.insert(slots.end(), request.slots.begin(), request.slots.end());
    ids.insert(ids.end(), request.next.begin(), request.next.end());
  }
  // So many rows at a time as a product treats alike.
  std::vector<at::Tensor> parts;
  for (size_t first = 0; first < slots.size(); first += ops::kFewRows) {
    const size_t count = std::min<size_t>(ops::kFewRows, slots.size() - first);
    const auto part = std::span(slots).subspan(first, count);
    const auto hidden = decode({part.begin(), part.end()},
                               row_tensor(std::span(ids).subspan(first, count), weights_.output.device()).t());
    parts.push_back(output_logits(weights_, hidden.select(1, 0)).to(at::kCPU, at::kFloat).contiguous());
  }
  const auto logits = parts.size() == 1 ? parts[0] : at::cat(parts);  // [rows, vocab]
  std::span<float> rest(logits.mutable_data_ptr<float>(), static_cast<size_t>(logits.numel()));
  for (auto& request : running_) {
    const size_t own = request.slots.size() * static_cast<size_t>(logits.size(1));
    advance(request, rest.first(own));
    rest = rest.subspan(own);
  }
}

void Session::advance(Running& running, std::span<float> logits) {
  std::vector<Continuation> continuations;
  try {
    continuations = running.search->advance(logits);
    if (continuations.empty()) running.result.outputs = running.search->results();
  } catch (const Error& error) {
    running.result.error = error.what();
  }
  std::vector<int64_t> parents;
  running.next.clear();
  for (const auto& [row, id] : continuations) {
    parents.push_back(running.slots[row]);
    running.next.push_back(id);
  }
  running.slots = cache_.replace_rows(running.slots, parents);
  running.done = continuations.empty();
}

void Session::tell() {
  // A listener may cancel any request and submit others: requests are found anew by their ids.
  std::vector<uint64_t> ids;
  for (const auto& request : running_) ids.push_back(request.id);
  for (const uint64_t id : ids) {
    const auto find = [&] {
      return std::find_if(running_.begin(), running_.end(), [id](const Running& request) { return request.id == id; });
    };
    auto request = find();
    if (request == running_.end()) continue;
    const auto listener = request->listener;
    for (const auto& [sample, token] : std::exchange(request->tokens, {}))
      if (find() != running_.end()) listener.on_token(sample, token);
    request = find();
    if (request == running_.end() || !request->done) continue;
    const Running ended = std::move(*request);
    running_.erase(request);
    if (listener.on_result) listener.on_result(ended.request, ended.result);
  }
}

std::vector<Hypotheses> generate_all(const ModelConfig& config, const ComputeWeights& weights,
                                     const Vocabulary* vocabulary, const std::vector<Request>& requests,
                                     const SessionOptions& options) {
  Session session(config, weights, vocabulary, options);
  std::vector<Hypotheses> results(requests.size());
  std::string error;
  for (size_t n = 0; n < requests.size(); ++n) {
    const auto place = join("prompt ", n + 1, ": ");
    try {
      session.submit(requests[n], {.on_result = [&, n, place](const Request&, const Result& result) {
                       if (error.empty() && !result.error.empty()) error = place + result.error;
                       results[n] = result.outputs;
                     }});
    } catch (const Error& refused) {
      throw Error(place + refused.what());
    }
  }
  while (error.empty() && session.step()) {
  }
  SY_CHECK(error.empty(), error);
  return results;
}

}  // namespace switchyard
