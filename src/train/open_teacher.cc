#include "train/open_teacher.h"

#include <algorithm>
#include <cstdio>

#include "base/files.h"
#include "base/messages.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "train/model_teacher.h"
#include "train/teacher_cache.h"
#include "train/tensorboard.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<ModelTeacher> open_model(const RunConfig& run, at::Device device) {
  const auto& distill = run.distill;
  auto model = open_for_inference(resolve_model_folder(distill.teacher), compute_dtype(run), device);
  SY_CHECK(model.config.vocab_size == run.model.vocab_size, distill.teacher, " answers with ", model.config.vocab_size,
           " ids, the student has ", run.model.vocab_size, "; both need the same vocabulary");
  return std::make_unique<ModelTeacher>(std::move(model), distill.teacher_weight, distill.temperature);
}

// A checksum of every 64th page of a file. Training changes every value, so that these pages tell one teacher from
// another, and a large teacher need not be read whole to see that its answers are there already.
uint32_t checksum_of_pages(const fs::path& path) {
  constexpr size_t kPage = 4096, kStride = 64 * kPage;
  const InputFile file(path);
  std::string pages = std::to_string(file.size());
  for (uint64_t begin = 0; begin < file.size(); begin += kStride) {
    const size_t size = std::min<uint64_t>(kPage, file.size() - begin), there = pages.size();
    pages.resize(there + size);
    file.read(begin, pages.data() + there, size);
  }
  return crc32c(pages);
}

Json files_of(const fs::path& model) {
  Json files = Json::object();
  for (const auto& entry : fs::directory_iterator(model)) {
    const auto extension = entry.path().extension();
    if (entry.is_regular_file() && (extension == ".safetensors" || extension == ".bin" || extension == ".json"))
      files[entry.path().filename().string()] = checksum_of_pages(entry.path());
  }
  return files;
}

// Those of the run's settings that decide which tokens the teacher is asked about.
TeacherCacheKey key_of(const RunConfig& run, const Json& settings, const ExampleSource& examples) {
  const auto shape = examples.shape();
  TeacherCacheKey key{.top_k = run.distill.cache_top_k,
                      .shape = {shape.batch_size, shape.encoder_length, shape.decoder_length},
                      .vocab_size = run.model.vocab_size};
  key.about["teacher"] = files_of(resolve_model_folder(run.distill.teacher));
  key.about["distill"] = {{"cache_top_k", run.distill.cache_top_k}, {"temperature", run.distill.temperature}};
  key.about["data"] = settings.at("data");
  key.about["train"] = {{"seed", run.train.seed}, {"batch_size", run.train.batch_size}, {"dtype", run.train.dtype}};
  key.about["content"] = settings.at("content");
  return key;
}

fs::path folder_of(const RunConfig& run, const TeacherCacheKey& key, const fs::path& cache_folder) {
  if (!run.distill.cache.empty()) return run.distill.cache;
  char name[24];
  std::snprintf(name, sizeof name, "teacher-%08x", crc32c(key.about.dump()));
  return (run.data.cache.empty() ? cache_folder : fs::path(run.data.cache)) / name;
}

void make_answers(const TeacherCache& cache, const TeacherCacheKey& key, const RunConfig& run,
                  const ExampleSource& examples, int64_t first_step, at::Device device) {
  if (cache.has(first_step, run.train.steps)) return;
  const auto teacher = open_model(run, device);
  const int64_t unit = teacher->sequences_per_cut(key.shape), wanted = run.train.micro_batch_size;
  const int64_t rows =
      wanted == 0 ? key.shape.sequences : std::clamp(wanted / unit * unit, unit, std::max(unit, key.shape.sequences));
  cache.make(first_step, run.train.steps,
             [&](int64_t step) { return top_answers(*teacher, examples.batch(step), step + 1, rows, key, device); });
}

}  // namespace

std::unique_ptr<Teacher> open_teacher(const RunConfig& run, const Json& settings, const ExampleSource& examples,
                                      int64_t first_step, const fs::path& cache_folder, at::Device device,
                                      const Mesh& mesh) {
  if (run.distill.teacher.empty()) return nullptr;
  if (run.distill.cache_top_k == 0) return open_model(run, device);
  const auto key = key_of(run, settings, examples);
  const auto folder = folder_of(run, key, cache_folder);
  mesh.from_first("teacher's answers", [&] {
    make_answers(TeacherCache(folder, key), key, run, examples, first_step, device);
    return std::string();
  });
  say("learning from the teacher's ", key.top_k, " likeliest answers in ", folder.string());
  return std::make_unique<CachedTeacher>(TeacherCache(folder, key), key.vocab_size, run.distill.teacher_weight,
                                         run.distill.temperature);
}

}  // namespace switchyard
