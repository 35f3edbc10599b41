// Several sources as one: each row of a batch comes from one of them, as often as their rates say.
//
// Examples are dealt out in blocks of 65,536, in each of which every source has a fixed number of places, in an order
// of the block's own. So row `row` of step `step` is the same example of the same source whatever was asked for before,
// and a source is read in its own order: each of its epochs is whole.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/enum_words.h"
#include "data/example_source.h"

namespace switchyard {

// What rates are made of: given ones, the sizes of the sources (T5's examples_proportional), or nothing.
enum class MixtureRule { kRates, kProportional, kEqual };
template <>
inline constexpr auto enum_words<MixtureRule> = std::to_array<const char*>({"rates", "proportional", "equal"});

// min(size, maximum)^(1 / temperature) of each size; maximum 0: no limit (T5's rate_num_examples). Temperature 1 / 0.3
// is mT5's exponent 0.3.
std::vector<double> proportional_rates(const std::vector<int64_t>& sizes, int64_t maximum, double temperature);

struct MixturePart {
  std::string name;
  double rate = 0.0;                      // any unit
  std::unique_ptr<ExampleSource> source;  // of one row a step
};

class MixtureSource : public ExampleSource {
 public:
  // Rows are as long as the longest of any part, shorter ones padded. Throws Error without parts, for a rate that is
  // not above 0, two parts of one name, or a part of several rows a step.
  MixtureSource(std::vector<MixturePart> parts, uint64_t seed, int64_t batch_size);

  Batch rows(int64_t step, int64_t first, int64_t count) const override;
  SourceShape shape() const override { return shape_; }
  int64_t examples_per_epoch() const override { return 0; }  // every part has its own
  std::vector<std::string> part_names() const override;

  // Part and example of it (from 0) that example `number` of the mixture is.
  struct Place {
    int64_t part, example;
  };
  Place place_of(int64_t number) const;

 private:
  struct Block;
  std::shared_ptr<const Block> block(int64_t number) const;

  std::vector<MixturePart> parts_;
  std::vector<int64_t> places_;  // of each part in a block
  uint64_t seed_;
  SourceShape shape_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Block> latest_;  // the block that was asked for last
};

}  // namespace switchyard
