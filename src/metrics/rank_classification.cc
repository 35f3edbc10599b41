#include "metrics/rank_classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace switchyard {
namespace {

struct Choice {
  size_t target, prediction;
  double weight;
};

size_t best(const std::vector<double>& scores) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

double weighted_f1(const std::vector<Choice>& choices, size_t one) {
  double both = 0, all = 0;
  for (const auto& [target, prediction, weight] : choices) {
    both += target == one && prediction == one ? 2 * weight : 0;
    all += (target == one ? weight : 0) + (prediction == one ? weight : 0);
  }
  return all > 0 ? both / all : 0;
}

// Areas under the curves that a falling threshold draws; equal probabilities are passed together.
struct Areas {
  double roc = 0, precision_recall = 0;
};

Areas areas(std::span<const RankedExample> examples, const std::vector<Choice>& choices) {
  std::vector<double> probability(examples.size());
  for (size_t n = 0; n < examples.size(); ++n) {
    // In f32, as in T5: what is a tie depends on it.
    const float first = static_cast<float>(examples[n].scores[0]), second = static_cast<float>(examples[n].scores[1]);
    const float top = std::max(first, second);
    const float odds = std::exp(second - top);
    probability[n] = odds / (std::exp(first - top) + odds);
  }
  std::vector<size_t> order(examples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return probability[a] > probability[b]; });
  double positives = 0, negatives = 0;
  for (const auto& choice : choices) (choice.target == 1 ? positives : negatives) += choice.weight;
  Areas result;
  double hits = 0, misses = 0;
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const double hits_before = hits, misses_before = misses;
    for (; end < order.size() && probability[order[end]] == probability[order[begin]]; ++end)
      (choices[order[end]].target == 1 ? hits : misses) += choices[order[end]].weight;
    result.roc += (misses - misses_before) * (hits + hits_before) / 2 / (positives * negatives);
    if (hits + misses > 0) result.precision_recall += (hits - hits_before) / positives * hits / (hits + misses);
  }
  return result;
}

}  // namespace

RankScore score_ranks(std::span<const RankedExample> examples) {
  SY_CHECK(!examples.empty(), "metrics: nothing to score");
  std::vector<Choice> choices;
  bool one_answer = true, same_size = true;
  double right = 0, weights = 0;
  for (const auto& example : examples) {
    SY_CHECK(!example.scores.empty() && example.scores.size() == example.correct.size(), "metrics: example ",
             choices.size() + 1, " has ", example.scores.size(), " scores for ", example.correct.size(), " classes");
    const size_t prediction = best(example.scores);
    const auto first = std::find(example.correct.begin(), example.correct.end(), true);
    choices.push_back({static_cast<size_t>(first - example.correct.begin()), prediction, example.weight});
    one_answer = one_answer && std::count(example.correct.begin(), example.correct.end(), true) == 1;
    same_size = same_size && example.scores.size() == examples[0].scores.size();
    right += example.correct[prediction] ? example.weight : 0;
    weights += example.weight;
  }
  SY_CHECK(weights > 0, "metrics: the examples' weights add up to ", weights);
  RankScore result{.accuracy = 100.0 * right / weights};
  const size_t num_classes = examples[0].scores.size();
  if (!one_answer || !same_size || num_classes < 2) return result;
  if (num_classes > 2) {
    double sum = 0;
    for (size_t one = 0; one < num_classes; ++one) sum += weighted_f1(choices, one);
    result.macro_f1 = 100.0 * sum / static_cast<double>(num_classes);
    return result;
  }
  result.f1 = 100.0 * weighted_f1(choices, 1);
  const auto is_positive = [](const Choice& choice) { return choice.target == 1 && choice.weight > 0; };
  const auto is_negative = [](const Choice& choice) { return choice.target == 0 && choice.weight > 0; };
  if (std::any_of(choices.begin(), choices.end(), is_positive) &&
      std::any_of(choices.begin(), choices.end(), is_negative)) {
    const auto [roc, precision_recall] = areas(examples, choices);
    result.auc_roc = 100.0 * roc;
    result.auc_pr = 100.0 * precision_recall;
  }
  return result;
}

}  // namespace switchyard
