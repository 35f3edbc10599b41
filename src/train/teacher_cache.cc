#include "train/teacher_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cstdio>

#include "base/config.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "checkpoint/safetensors.h"
#include "eval/text_loss.h"
#include "train/settings.h"
#include "train/tensorboard.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostSteps = 16;                    // of a file: what a stop costs
constexpr int64_t kFileBytes = int64_t{64} << 20;     // at most, if it is not one step's
constexpr int64_t kBlockElements = int64_t{1} << 22;  // probabilities of a block of tokens: 16 MiB

std::string hexadecimal(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::string checksum_of(const at::Tensor& labels, const at::Tensor& ids, const at::Tensor& probabilities) {
  std::string sums;
  for (const auto* tensor : {&labels, &ids, &probabilities}) sums += hexadecimal(crc32c(bytes_of(*tensor)));
  return sums;
}

}  // namespace

struct TeacherCache::File {
  int64_t first_step = 0;
  at::Tensor labels;              // [steps, sequences] i64
  at::Tensor ids, probabilities;  // [labels, top_k] i16 or i32, f16
  std::vector<int64_t> begins;    // [steps + 1]: of each step's labels
};

TeacherCache::TeacherCache(fs::path folder, const TeacherCacheKey& key)
    : folder_(std::move(folder)), key_(key), checksum_(hexadecimal(crc32c(key.about.dump()))) {
  SY_CHECK(key_.top_k >= 1 && key_.top_k <= key_.vocab_size, "distill.cache_top_k = ", key_.top_k, ": expected 1 to ",
           key_.vocab_size, ", the ids that the teacher chooses among");
  const int64_t step_bytes = key_.shape.sequences * key_.shape.decoder_length * key_.top_k * 4;
  steps_a_file_ = std::clamp<int64_t>(kFileBytes / std::max<int64_t>(1, step_bytes), 1, kMostSteps);
  const auto about = folder_ / "about.json";
  if (fs::exists(about)) {
    const auto changes = changed_settings(parse_json(read_file(about), about.string()), key_.about);
    std::string list;
    for (const auto& change : changes) list += "\n  " + change;
    SY_CHECK(changes.empty(), folder_.string(), " holds the answers of another teacher, or to other data:", list,
             "\nname another folder in distill.cache, or remove this one");
    return;
  }
  std::error_code error;
  fs::create_directories(folder_, error);
  SY_CHECK(fs::is_directory(folder_), "cannot make the folder ", folder_.string(), ": ", error.message());
  write_file_atomically(about, key_.about.dump(1) + "\n");
}

fs::path TeacherCache::file_of(int64_t step) const {
  char name[48];
  std::snprintf(name, sizeof name, "steps-%08lld.safetensors",
                static_cast<long long>(step / steps_a_file_ * steps_a_file_));
  return folder_ / name;
}

bool TeacherCache::has(int64_t first, int64_t end) const {
  for (int64_t step = first / steps_a_file_ * steps_a_file_; step < end; step += steps_a_file_)
    if (!fs::exists(file_of(step))) return false;
  return true;
}

void TeacherCache::make(int64_t first, int64_t end, const std::function<Answers(int64_t)>& answer) const {
  Progress progress({.name = "teacher's answers"}, static_cast<double>(end));
  for (int64_t begin = first / steps_a_file_ * steps_a_file_; begin < end; begin += steps_a_file_) {
    if (fs::exists(file_of(begin))) continue;
    std::vector<at::Tensor> labels, ids, probabilities;
    for (int64_t step = begin; step < begin + steps_a_file_; ++step) {
      SY_CHECK(!interrupted(), "interrupted while the teacher's answers were written to ", folder_.string(),
               "; start again to go on");
      const auto answers = answer(step);
      labels.push_back(answers.labels_of_row.unsqueeze(0));
      ids.push_back(answers.ids.to(key_.vocab_size <= 1 << 15 ? at::kShort : at::kInt));
      probabilities.push_back(answers.probabilities.to(at::kHalf));
      progress.update(static_cast<double>(std::min(step + 1, end)), folder_.string());
    }
    const auto all_labels = at::cat(labels), all_ids = at::cat(ids), all = at::cat(probabilities);
    write_safetensors(
        file_of(begin),
        {{"ids", all_ids, all_ids.scalar_type()}, {"labels", all_labels, at::kLong}, {"probabilities", all, at::kHalf}},
        {{"about", checksum_},
         {"first_step", std::to_string(begin)},
         {"checksum", checksum_of(all_labels, all_ids, all)}});
  }
  progress.finish();
}

const TeacherCache::File& TeacherCache::open(int64_t step) const {
  const int64_t first = step / steps_a_file_ * steps_a_file_;
  if (latest_ && latest_->first_step == first) return *latest_;
  const auto path = file_of(step);
  const std::string advice = "; remove it and start again with --resume, which has it made anew";
  auto read = read_safetensors(path);
  auto& tensors = read.tensors;
  for (const char* name : {"ids", "labels", "probabilities"})
    SY_CHECK(tensors.contains(name), path.string(), ": tensor ", name, " is missing", advice);
  SY_CHECK(read.metadata["about"] == checksum_ && read.metadata["first_step"] == std::to_string(first), path.string(),
           ": of other steps, or of another cache than the files beside it", advice);
  auto file = std::make_shared<File>();
  file->first_step = first;
  file->labels = tensors.at("labels");
  file->ids = tensors.at("ids");
  file->probabilities = tensors.at("probabilities");
  SY_CHECK(read.metadata["checksum"] == checksum_of(file->labels, file->ids, file->probabilities), path.string(),
           ": damaged", advice);
  file->begins = {0};
  for (int64_t row = 0; row < file->labels.size(0); ++row)
    file->begins.push_back(file->begins.back() + file->labels[row].sum().item<int64_t>());
  latest_ = file;
  return *latest_;
}

TeacherCache::Answers TeacherCache::read(int64_t step) const {
  const auto& file = open(step);
  const auto place = static_cast<size_t>(step - file.first_step);
  const int64_t begin = file.begins[place], count = file.begins[place + 1] - begin;
  return {file.labels[static_cast<int64_t>(place)], file.ids.narrow(0, begin, count).to(at::kLong),
          file.probabilities.narrow(0, begin, count).to(at::kFloat)};
}

at::Tensor spread_probabilities(const at::Tensor& ids, const at::Tensor& probabilities, int64_t vocab_size) {
  const int64_t others = vocab_size - ids.size(1);
  const auto sums = probabilities.sum(1, /*keepdim=*/true);
  // In f16 they may come to a little more than 1, or, where they are all, to a little less.
  const auto kept = probabilities / (others > 0 ? sums.clamp_min(1.0) : sums);
  auto rest = sums.neg().add(1.0).clamp_min(0.0).mul(1.0 / static_cast<double>(std::max<int64_t>(1, others)));
  return rest.expand({ids.size(0), vocab_size}).clone().scatter_(1, ids, kept);
}

SoftTargets CachedTeacher::soft_targets(const LossInput& input, int64_t step, int64_t first_example,
                                        const StepTotals&) const {
  const auto answers = cache_.read(step - 1);
  const auto labels = input.labels.cpu();
  const auto counts = labels.ge(0).sum(1);
  SY_CHECK(first_example + labels.size(0) <= answers.labels_of_row.size(0) &&
               counts.equal(answers.labels_of_row.narrow(0, first_example, labels.size(0))),
           cache_.file_of(step - 1).string(), ": step ", step, " has other labels than the batch that was answered");
  const int64_t begin = answers.labels_of_row.narrow(0, 0, first_example).sum().item<int64_t>();
  // [batch * decoder_length]: which of the answers a token's is.
  const auto place = at::cumsum(labels.ge(0).reshape({-1}).to(at::kLong), 0).add(begin - 1);
  return {
      .weight = weight_,
      .temperature = temperature_,
      .probabilities = [answers, place, size = vocab_size_, device = input.labels.device()](const at::Tensor& tokens) {
        const auto rows = place.index_select(0, tokens);
        return spread_probabilities(answers.ids.index_select(0, rows), answers.probabilities.index_select(0, rows),
                                    size)
            .to(device);
      }};
}

TeacherCache::Answers top_answers(const Teacher& teacher, const Batch& batch, int64_t step, int64_t rows,
                                  const TeacherCacheKey& key, at::Device device) {
  const auto whole = to_tensors(batch, 0, batch.batch_size);
  const auto is_label = whole.labels.ge(0);
  const StepTotals totals{.sequences = batch.batch_size,
                          .encoder_tokens = whole.encoder.mask.defined() ? whole.encoder.mask.sum().item<int64_t>()
                                                                         : whole.encoder.ids.numel(),
                          .decoder_tokens = is_label.sum().item<int64_t>()};
  std::vector<at::Tensor> ids, probabilities;
  for (int64_t first = 0; first < batch.batch_size; first += rows) {
    const auto input = to_tensors(batch, first, std::min(rows, batch.batch_size - first), device);
    const auto soft = teacher.soft_targets(input, step, first, totals);
    const auto kept = at::nonzero(input.labels.cpu().reshape({-1}).ge(0)).squeeze(1);
    const int64_t block = std::max<int64_t>(16, kBlockElements / key.vocab_size);
    for (int64_t begin = 0; begin < kept.size(0); begin += block) {
      const auto answers = soft.probabilities(kept.narrow(0, begin, std::min(block, kept.size(0) - begin)));
      const auto [largest, largest_ids] = at::topk(answers, key.top_k, 1);
      probabilities.push_back(largest.to(at::kCPU, at::kFloat));
      ids.push_back(largest_ids.cpu());
    }
  }
  return {is_label.sum(1), at::cat(ids), at::cat(probabilities)};
}

}  // namespace switchyard
