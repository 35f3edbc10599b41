// A teacher's likeliest answers on disk: made once in a pass over the order of the data, read by any number of students
// in place of the teacher.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/batch.h"
#include "model/routing_groups.h"
#include "train/teacher.h"

namespace switchyard {

// What answers depend on, by sections ("data", "teacher"), and how many are kept of each.
struct TeacherCacheKey {
  Json about = Json::object();
  int64_t top_k = 0;
  BatchShape shape = {};  // of a step's batch
  int64_t vocab_size = 0;
};

// Files of some steps each, whole or absent, with checksums; about.json beside them. Of each target token they hold the
// top_k largest probabilities in f16 with their ids; what is left of the mass is spread evenly over the other ids when
// they are read, so that a student is not told that the rest is impossible.
class TeacherCache {
 public:
  // Begins the cache, or goes on with one of the same key. Throws Error naming every difference if `folder` holds the
  // answers of another teacher, or to other data.
  TeacherCache(std::filesystem::path folder, const TeacherCacheKey& key);

  // Of one step's batch: [rows with a label, top_k], in the order of the batch. Steps from 0.
  struct Answers {
    at::Tensor labels_of_row;       // [sequences] i64
    at::Tensor ids, probabilities;  // [labels, top_k] i64, f32
  };

  // Writes the files that steps [first, end) lie in and that are not there, asking answer(step) for each of their steps
  // in order. Stopped in the middle, it leaves whole files, and goes on behind them. Says how far it is.
  void make(int64_t first, int64_t end, const std::function<Answers(int64_t)>& answer) const;
  bool has(int64_t first, int64_t end) const;  // all of these files

  // A file's steps lie in [first, first + steps_a_file()).
  int64_t steps_a_file() const { return steps_a_file_; }
  std::filesystem::path file_of(int64_t step) const;

  // Throws Error naming the file if it is missing or damaged.
  Answers read(int64_t step) const;

 private:
  struct File;
  const File& open(int64_t step) const;

  std::filesystem::path folder_;
  TeacherCacheKey key_;
  std::string checksum_;  // of the key, which every file repeats
  int64_t steps_a_file_ = 1;
  mutable std::shared_ptr<const File> latest_;
};

// Answers with what a cache holds of each step's batch.
class CachedTeacher : public Teacher {
 public:
  // weight and temperature as in SoftTargets; probabilities are those of the temperature at which the cache was made.
  CachedTeacher(TeacherCache cache, int64_t vocab_size, double weight, double temperature)
      : cache_(std::move(cache)), vocab_size_(vocab_size), weight_(weight), temperature_(temperature) {}

  // Throws Error if the batch has other labels than the one that the answers are to.
  SoftTargets soft_targets(const LossInput& input, int64_t step, int64_t first_example,
                           const StepTotals& totals) const override;
  int64_t sequences_per_cut(const BatchShape&) const override { return 1; }

 private:
  TeacherCache cache_;
  int64_t vocab_size_;
  double weight_, temperature_;
};

// [rows, vocab_size] f32 of ids and probabilities [rows, k]: what k ids leave of the mass is spread evenly over the
// others; rows sum to 1.
at::Tensor spread_probabilities(const at::Tensor& ids, const at::Tensor& probabilities, int64_t vocab_size);

// What `teacher` answers to all labels of a batch, update number `step`, in passes of `rows` sequences.
TeacherCache::Answers top_answers(const Teacher& teacher, const Batch& batch, int64_t step, int64_t rows,
                                  const TeacherCacheKey& key, at::Device device);

}  // namespace switchyard
