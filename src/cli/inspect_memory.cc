#include "cli/inspect_memory.h"

#include <cinttypes>
#include <cstdio>

#include "base/json.h"
#include "cli/run_workload.h"
#include "plan/planner.h"

namespace switchyard {

void inspect_memory(const InspectMemory& command) {
  auto run = read_workload(command.subject, command.settings);
  auto& workload = run.workload;
  if (!run.is_run) {
    workload.batch_size = workload.micro_batch_size = command.batch;
    workload.encoder_length = command.encoder_length;
    workload.decoder_length = command.decoder_length;
    workload.is_bf16 = command.is_bf16;
  }
  auto cluster = known_cluster("cpu", run.layout.num_ranks());
  cluster.memory_bytes = 1e18;  // it is the question, not a bound
  const auto plan = plan_layout(workload, cluster, run.layout);
  const auto& use = plan.memory;
  const struct {
    const char *key, *words;
    double bytes;
  } lines[] = {
      {"weights", "in fp32", use.weights - use.copies},
      {"copies", "of weights, as passes read them", use.copies},
      {"gradients", "at the end of a step's passes", use.gradients},
      {"optimizer", "moments", use.optimizer},
      {"activations", "kept by the forward pass", use.activations},
      {"buffers", "beyond these at the fullest moment", use.buffers},
      {"overlap", "not there then: gradients come while activations go", -use.overlap},
      {"peak", "their sum", use.total()},
  };
  if (command.json) {
    Json bytes;
    for (const auto& line : lines) bytes[line.key] = static_cast<int64_t>(line.bytes);
    std::printf("%s\n", Json{{"model", command.subject},
                             {"batch_size", workload.batch_size},
                             {"micro_batch_size", plan.micro_batch},
                             {"encoder_length", workload.encoder_length},
                             {"decoder_length", workload.decoder_length},
                             {"dtype", workload.is_bf16 ? "bf16" : "fp32"},
                             {"optimizer", workload.optimizer},
                             {"ranks", run.layout.num_ranks()},
                             {"memory_bytes", bytes}}
                            .dump()
                            .c_str());
    return;
  }
  std::printf("%s in training: %" PRId64 " of %" PRId64 " sequences a pass, %" PRId64 " + %" PRId64 " tokens, %s, %s",
              command.subject.c_str(), plan.micro_batch, workload.batch_size, workload.encoder_length,
              workload.decoder_length, workload.is_bf16 ? "bf16" : "fp32", workload.optimizer.c_str());
  if (run.layout.num_ranks() > 1) std::printf("; the fullest of %" PRId64 " ranks", run.layout.num_ranks());
  std::printf("\n\n");
  for (const auto& line : lines)
    if (line.bytes != 0) std::printf("%-12s %10.1f MiB  %s\n", line.key, line.bytes / (1024.0 * 1024.0), line.words);
  std::printf(
      "\nThe program, its libraries and the text come on top, some 300 MiB. Freed memory stays with the process unless "
      "MALLOC_MMAP_THRESHOLD_\nis set: its gaps may take as much again as what is made anew in each step.\n");
}

}  // namespace switchyard
