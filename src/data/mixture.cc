#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace switchyard {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // examples; rates are rounded to multiples of 1 / kBlock

// Shares out kBlock places by rates: each source gets the whole part of its share, and at least one; what is left goes
// to the largest remainders.
std::vector<int64_t> share_places(const std::vector<double>& rates) {
  const double sum = std::accumulate(rates.begin(), rates.end(), 0.0);
  std::vector<int64_t> places;
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t part = 0; part < rates.size(); ++part) {
    const double exact = rates[part] / sum * static_cast<double>(kBlock);
    places.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact)));
    remainders.emplace_back(exact - static_cast<double>(places.back()), part);
  }
  int64_t left = kBlock - std::accumulate(places.begin(), places.end(), int64_t{0});
  std::stable_sort(remainders.begin(), remainders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t n = 0; left > 0; n = (n + 1) % remainders.size(), --left) ++places[remainders[n].second];
  for (; left < 0; ++left) --*std::max_element(places.begin(), places.end());  // many parts were raised to one
  return places;
}

}  // namespace

std::vector<double> proportional_rates(const std::vector<int64_t>& sizes, int64_t maximum, double temperature) {
  std::vector<double> rates;
  for (const int64_t size : sizes)
    rates.push_back(std::pow(static_cast<double>(maximum > 0 ? std::min(size, maximum) : size), 1.0 / temperature));
  return rates;
}

// For every place in a block: its part, and which of that part's places it is.
struct MixtureSource::Block {
  int64_t number = 0;
  std::vector<uint16_t> part;
  std::vector<int32_t> rank;
};

MixtureSource::MixtureSource(std::vector<MixturePart> parts, uint64_t seed, int64_t batch_size)
    : parts_(std::move(parts)), seed_(seed), shape_{.batch_size = batch_size} {
  SY_CHECK(batch_size > 0, "batch_size ", batch_size, ": expected at least 1");
  SY_CHECK(!parts_.empty() && static_cast<int64_t>(parts_.size()) < kBlock / 2, "a mixture of ", parts_.size(),
           " parts");
  std::vector<double> rates;
  for (const auto& [name, rate, source] : parts_) {
    SY_CHECK(std::isfinite(rate) && rate > 0.0, "mixture part ", name, ": rate ", rate, ", expected more than 0");
    SY_CHECK(
        std::count_if(parts_.begin(), parts_.end(), [&own = name](const auto& part) { return part.name == own; }) == 1,
        "two parts of the mixture are named ", name, "; give them names");
    const auto shape = source->shape();
    SY_CHECK(shape.batch_size == 1, "mixture part ", name, " has ", shape.batch_size, " rows a step, expected 1");
    shape_.encoder_length = std::max(shape_.encoder_length, shape.encoder_length);
    shape_.decoder_length = std::max(shape_.decoder_length, shape.decoder_length);
    rates.push_back(rate);
  }
  places_ = share_places(rates);
}

std::vector<std::string> MixtureSource::part_names() const {
  std::vector<std::string> names;
  for (const auto& part : parts_) names.push_back(part.name);
  return names;
}

std::shared_ptr<const MixtureSource::Block> MixtureSource::block(int64_t number) const {
  const std::lock_guard lock(mutex_);
  if (latest_ && latest_->number == number) return latest_;
  std::vector<uint16_t> part_of_slot;
  for (size_t part = 0; part < parts_.size(); ++part)
    part_of_slot.insert(part_of_slot.end(), static_cast<size_t>(places_[part]), static_cast<uint16_t>(part));
  auto block = std::make_shared<Block>();
  block->number = number;
  std::vector<int32_t> taken(parts_.size(), 0);
  const NoiseKey key{seed_, NoisePurpose::kMixture, static_cast<uint64_t>(number)};
  for (uint64_t place = 0; place < static_cast<uint64_t>(kBlock); ++place) {
    const uint16_t part = part_of_slot[permute(place, kBlock, key)];
    block->part.push_back(part);
    block->rank.push_back(taken[part]++);
  }
  latest_ = block;
  return block;
}

MixtureSource::Place MixtureSource::place_of(int64_t number) const {
  const auto from = block(number / kBlock);
  const auto place = static_cast<size_t>(number % kBlock);
  const auto part = from->part[place];
  return {part, from->number * places_[part] + from->rank[place]};
}

Batch MixtureSource::rows(int64_t step, int64_t first, int64_t count) const {
  check_rows(shape_, first, count);
  Batch batch;
  batch.batch_size = count;
  batch.encoder_length = shape_.encoder_length;
  batch.decoder_length = shape_.decoder_length;
  batch.first_example = first;
  batch.encoder_input_tokens.assign(static_cast<size_t>(count * shape_.encoder_length), 0);
  batch.decoder_target_tokens.assign(static_cast<size_t>(count * shape_.decoder_length), 0);
  for (int64_t row = 0; row < count; ++row) {
    const auto [part, example] = place_of(step * shape_.batch_size + first + row);
    const Batch one = parts_[static_cast<size_t>(part)].source->rows(example, 0, 1);
    std::copy(one.encoder_input_tokens.begin(), one.encoder_input_tokens.end(),
              batch.encoder_input_tokens.begin() + row * shape_.encoder_length);
    std::copy(one.decoder_target_tokens.begin(), one.decoder_target_tokens.end(),
              batch.decoder_target_tokens.begin() + row * shape_.decoder_length);
    batch.part.push_back(static_cast<int32_t>(part));
  }
  return batch;
}

}  // namespace switchyard
