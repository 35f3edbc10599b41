// The options of every command that computes: --device, --dtype, --threads, --kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

namespace switchyard {

struct ComputeOptions {
  std::string device = "auto";
  std::string dtype = {};  // "": the command's own default
  int threads = 0;         // 0: OMP_NUM_THREADS, else all cores
  std::string kernels = "fast";
  std::optional<int64_t> expert_memory = {};  // bytes; where the command has the option (cli/expert_memory.h)
};

void add_compute_options(CLI::App& command, ComputeOptions& options);

// Sets threads and kernels and checks the device. Throws Error for a device that this build or machine does not have.
void apply(const ComputeOptions& options);

// Where a command computes: "auto" is a GPU where there is one. Throws Error as apply() does.
at::Device device_of(const ComputeOptions& options);

// "fp32", "bf16", "fp64" or "auto". Throws Error on another name.
at::ScalarType dtype_of(const std::string& name);

}  // namespace switchyard
