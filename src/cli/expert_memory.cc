#include "cli/expert_memory.h"

#include <cstdio>

namespace switchyard {

void add_expert_memory(CLI::App& command, ComputeOptions& options) {
  command
      .add_option(
          "--expert-memory", options.expert_memory,
          "memory that experts may take, such as 8GiB: they are read from the model's files when tokens come, and "
          "the one used the longest time ago goes first. No result depends on it; left out, all stay that were "
          "read")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->type_name("TEXT");
}

Json expert_memory_json(const ExpertReads& reads, int64_t limit) {
  return {{"limit", limit},     {"hit_rate", reads.hit_rate()},   {"wanted", reads.wanted},
          {"read", reads.read}, {"bytes_read", reads.bytes_read}, {"peak_bytes", reads.peak_bytes}};
}

std::string expert_memory_line(const ExpertReads& reads, int64_t limit) {
  char line[256];
  std::snprintf(
      line, sizeof line,
      "experts: %.1f %% of %lld wanted were in memory; %.2f GB read from files; at most %.2f of %.2f GB taken",
      100.0 * reads.hit_rate(), static_cast<long long>(reads.wanted), 1e-9 * static_cast<double>(reads.bytes_read),
      1e-9 * static_cast<double>(reads.peak_bytes), 1e-9 * static_cast<double>(limit));
  return line;
}

}  // namespace switchyard
