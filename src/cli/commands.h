// One function a subcommand, each in a file of its name; main.cc calls them all.
#pragma once

#include <CLI/CLI.hpp>

namespace switchyard {

void add_vocab(CLI::App& app);
void add_train(CLI::App& app);
void add_distill(CLI::App& app);
void add_compare(CLI::App& app);
void add_ladder(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_embed(CLI::App& app);
void add_forward(CLI::App& app);
void add_inspect(CLI::App& app);
void add_convert(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_routing(CLI::App& bench);  // its jobs variants and routing
void add_bench_input(CLI::App& bench);    // its job input
void add_report(CLI::App& app);
void add_plan(CLI::App& app);
void add_serve(CLI::App& app);
void add_watch(CLI::App& app);

}  // namespace switchyard
