// Metrics for test_peers.py: one JSON object a line on standard input, {"metric": NAME, "targets", "predictions", ...};
// one JSON value a line on standard output.
#include <iostream>

#include "base/config.h"
#include "base/error.h"
#include "metrics/bleu.h"
#include "metrics/classification.h"
#include "metrics/correlation.h"
#include "metrics/grouped.h"
#include "metrics/porter_stemmer.h"
#include "metrics/question_answering.h"
#include "metrics/rank_classification.h"
#include "metrics/rouge.h"
#include "metrics/unicode.h"

namespace switchyard {
namespace {

using Texts = std::vector<std::string>;
using Numbers = std::vector<int64_t>;

Json class_metric(const std::string& name, const Json& job) {
  const auto targets = job.at("targets").get<Numbers>(), predictions = job.at("predictions").get<Numbers>();
  if (name == "accuracy") return accuracy(targets, predictions);
  if (name == "binary_f1") return binary_f1(targets, predictions);
  if (name == "macro_f1") return macro_f1(targets, predictions, job.at("classes"));
  if (name == "matthews") return matthews_correlation(targets, predictions);
  if (name == "exact_match") return group_exact_match(job.at("groups").get<Texts>(), targets, predictions);
  return nullptr;
}

Json text_metric(const std::string& name, const Json& job) {
  const auto targets = job.at("targets").get<std::vector<Texts>>();
  const auto predictions = job.at("predictions").get<Texts>();
  if (name == "squad" || name == "trivia_qa") {
    const auto score =
        score_answers(targets, predictions, name == "squad" ? AnswerForm::kSquad : AnswerForm::kTriviaQa);
    return {score.exact_match, score.f1};
  }
  if (name == "rouge") {
    const auto score = score_summaries(targets, predictions, {.stem = job.at("stem")});
    return {score.rouge1, score.rouge2, score.rouge_l, score.rouge_lsum};
  }
  if (name == "bleu")
    return corpus_bleu(targets, predictions, job.at("intl") ? BleuTokens::kInternational : BleuTokens::k13a);
  return nullptr;
}

Json value_of(const Json& job) {
  const std::string name = job.at("metric");
  if (name == "stem") return porter_stem(job.at("text"));
  if (name == "lower") return lower_case(job.at("text").get<std::string>());
  if (name == "normalize_squad") return normalize_squad(job.at("text").get<std::string>());
  if (name == "normalize_trivia_qa") return normalize_trivia_qa(job.at("text").get<std::string>());
  if (name == "bleu_tokens")
    return bleu_tokenize(job.at("text").get<std::string>(),
                         job.at("intl") ? BleuTokens::kInternational : BleuTokens::k13a);
  if (name == "pearson" || name == "spearman") {
    const auto targets = job.at("targets").get<std::vector<double>>();
    const auto predictions = job.at("predictions").get<std::vector<double>>();
    return name == "pearson" ? pearson_correlation(targets, predictions) : spearman_correlation(targets, predictions);
  }
  if (name == "ranks") {
    std::vector<RankedExample> examples;
    for (const auto& example : job.at("examples"))
      examples.push_back({example.at("scores").get<std::vector<double>>(),
                          example.at("correct").get<std::vector<bool>>(), example.at("weight")});
    const auto score = score_ranks(examples);
    const auto optional = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
    return {{"accuracy", score.accuracy},
            {"f1", optional(score.f1)},
            {"macro_f1", optional(score.macro_f1)},
            {"auc_roc", optional(score.auc_roc)},
            {"auc_pr", optional(score.auc_pr)}};
  }
  auto value = job.at("targets").at(0).is_number() ? class_metric(name, job) : text_metric(name, job);
  SY_CHECK(!value.is_null(), "metric_values: no metric ", name);
  return value;
}

}  // namespace
}  // namespace switchyard

int main() {
  for (std::string line; std::getline(std::cin, line);)
    std::cout << switchyard::value_of(switchyard::Json::parse(line)).dump() << '\n';
}
