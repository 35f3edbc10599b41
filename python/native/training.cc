#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/messages.h"
#include "cli/compute_options.h"
#include "native/bindings.h"
#include "native/json_objects.h"
#include "train/ranks.h"
#include "train/trainer.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

struct TrainingOptions {
  Json config;                        // sections of a run file
  std::string file;                   // or its path
  std::vector<std::string> settings;  // section.key=value, over either
  std::filesystem::path out;
  ResumeOptions start;
  std::string device;
};

RunConfig read_config(const TrainingOptions& options) {
  const auto checkpoint = options.start.checkpoint(options.out);
  if (!options.file.empty()) return read_run(options.file, options.settings, checkpoint);
  SY_CHECK(options.config.is_object(), "config: expected the path of a run file, or a dict of its sections");
  ConfigDocument document{.sections = options.config, .places = {}};
  for (const auto& [section, keys] : options.config.items())
    SY_CHECK(keys.is_object(), section, ": expected a dict of keys");
  for (const auto& setting : options.settings) apply_setting(document, setting);
  return resolve_run(document, std::filesystem::current_path(), checkpoint);
}

// What Python's caller may have switched off in this thread, training needs.
struct WithGradients {
  c10::InferenceMode no_inference{false};
  at::AutoGradMode gradients{true};
};

// One run, a step at a time.
class Training {
 public:
  explicit Training(const TrainingOptions& options) {
    const WithGradients on;
    keep_freed_memory();
    const auto device = device_of({.device = options.device});
    const auto config = read_config(options);
    mesh_ = open_mesh(config, device);
    if (!mesh_->is_first()) set_message_sink(std::make_shared<NoMessages>());
    trainer_ = std::make_unique<Trainer>(config, options.out, options.start, device, *mesh_);
  }

  // One step with the evaluation and checkpoint that are due after it, as `switchyard train` does it; its line of
  // metrics.jsonl, with the evaluation's numbers under "evaluation".
  Json step() {
    const WithGradients on;
    const auto result = advance(*trainer_);
    auto line = trainer_->metrics_of(result);
    if (trainer_->evaluation().empty()) return line;
    auto& numbers = line["evaluation"] = Json::object();
    for (const auto& number : trainer_->evaluation()) numbers[number.name] = number.value;
    return line;
  }

  std::filesystem::path save() {
    const WithGradients on;
    return trainer_->save();
  }
  const Trainer& trainer() const { return *trainer_; }

 private:
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace

void bind_training(nb::module_& module) {
  const auto release = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Training>(module, "Training")
      .def(
          "__init__",
          [](Training* self, nb::handle config, std::vector<std::string> settings, std::filesystem::path out,
             bool resume, bool allow_changes, std::string device) {
            const bool is_dict = nb::isinstance<nb::dict>(config);
            const auto json = to_json(config, "");
            SY_CHECK(is_dict || json.is_string(), "config: expected the path of a run file, or a dict of its sections");
            const TrainingOptions options{.config = is_dict ? json : Json(),
                                          .file = is_dict ? "" : json.get<std::string>(),
                                          .settings = std::move(settings),
                                          .out = std::move(out),
                                          .start = {.resume = resume, .allow_changes = allow_changes},
                                          .device = std::move(device)};
            const nb::gil_scoped_release unlocked;
            new (self) Training(options);
          },
          nb::arg("config"), nb::arg("settings"), nb::arg("out"), nb::arg("resume"), nb::arg("allow_changes"),
          nb::arg("device"))
      .def("step",
           [](Training& self) {
             Json line;
             {
               const nb::gil_scoped_release unlocked;
               line = self.step();
             }
             return to_python(line);
           })
      .def("save", &Training::save, release)
      .def_prop_ro("is_done", [](const Training& self) { return self.trainer().is_done(); })
      .def_prop_ro("steps_done", [](const Training& self) { return self.trainer().step(); })
      .def_prop_ro("num_steps", [](const Training& self) { return self.trainer().run().train.steps; })
      .def_prop_ro("num_parameters", [](const Training& self) { return self.trainer().num_parameters(); })
      .def_prop_ro("checkpoint", [](const Training& self) { return self.trainer().checkpoint(); })
      .def_prop_ro("run_toml", [](const Training& self) { return to_python(run_to_toml(self.trainer().run())); });
}

}  // namespace switchyard
