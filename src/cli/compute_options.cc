// The whole of ATen's context, for hasCUDA().
#define SWITCHYARD_ATEN_CONTEXT

#include "cli/compute_options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "ops/backend.h"
#include "parallel/launch.h"
#include "train/run_config.h"

namespace switchyard {

void add_compute_options(CLI::App& command, ComputeOptions& options) {
  command.add_option("--device", options.device, "cpu, cuda or auto")->capture_default_str();
  command.add_option("--dtype", options.dtype,
                     "compute precision: bf16, fp32, or auto: bf16 where the processor has it (fp64 in forward)");
  command.add_option("--threads", options.threads, "processor threads; 0: OMP_NUM_THREADS, else all cores")
      ->capture_default_str();
  command.add_option("--kernels", options.kernels, "fast, or reference: the plain form of every operation")
      ->check(CLI::IsMember({"fast", "reference"}))
      ->capture_default_str();
}

void apply(const ComputeOptions& options) {
  device_of(options);
  SY_CHECK(options.threads >= 0, "--threads ", options.threads, ": expected 0 or more");
  int threads = options.threads;
  if (const char* wanted = std::getenv("OMP_NUM_THREADS"); threads == 0 && wanted != nullptr)
    threads = std::atoi(wanted);
  if (threads <= 0) {  // all cores, shared with the other ranks on this machine
    const auto launch = launch_from_environment();
    threads =
        static_cast<int>(std::max<int64_t>(1, std::thread::hardware_concurrency() / (launch ? launch->local_size : 1)));
  }
  at::set_num_threads(threads);  // ours too: launchers otherwise leave ATen with one
  ops::use_reference_kernels(options.kernels == "reference");
}

at::Device device_of(const ComputeOptions& options) {
  SY_CHECK(options.device == "cpu" || options.device == "auto" || options.device == "cuda", "--device ", options.device,
           ": expected cpu, cuda or auto");
  if (options.device == "cpu") return at::kCPU;
  const bool has_gpu = at::hasCUDA();
  SY_CHECK(has_gpu || options.device == "auto",
           "--device cuda: this build's torch wheel has no CUDA, or this machine no GPU; use --device cpu, or build "
           "against a CUDA wheel (-DTORCH_WHEEL_DIR=<site-packages>/torch)");
  return has_gpu ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

at::ScalarType dtype_of(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "fp64") return at::kDouble;
  if (name == "auto") return dtype_of(resolved_dtype(name));
  if (name == "bf16") return at::kBFloat16;
  throw Error("dtype \"" + name + "\": expected auto, bf16, fp32 or fp64");
}

}  // namespace switchyard
