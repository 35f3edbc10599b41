// The teacher that a run names, as a model beside the student or as what was kept of its answers.
#pragma once

#include <filesystem>
#include <memory>

#include "data/example_source.h"
#include "parallel/mesh.h"
#include "train/run_config.h"
#include "train/teacher.h"

namespace switchyard {

// Null without one. With distill.cache_top_k the answers from step `first_step` (from 0) to the run's end are made on
// the first rank where they are not there, and the teacher is closed again; settings: training_settings() of the run,
// cache_folder: where data.cache is not set. Throws Error for a teacher of another vocabulary, and as TeacherCache
// does.
std::unique_ptr<Teacher> open_teacher(const RunConfig& run, const Json& settings, const ExampleSource& examples,
                                      int64_t first_step, const std::filesystem::path& cache_folder, at::Device device,
                                      const Mesh& mesh);

}  // namespace switchyard
