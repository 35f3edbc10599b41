#!/usr/bin/env python3
"""Each operation of a training step by Switchyard's kernels, by the plain composition beside them and by ATen (bench/).

Prints milliseconds and how many times as long the others take; writes them to bench/results/ops.json. ATen's form of the
experts is a loop over them, of attention its scaled_dot_product_attention, of AdamW its fused update; Adafactor and
routing it has none of. "both": forward and backward pass.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

from bench_peers import ROOT, processor

FORMS = ("kernel", "plain", "aten")


def table(result: dict) -> str:
    lines = ["| operation | type | pass | kernel, ms | plain | ATen |", "|---|---|---|---|---|---|"]
    for row in result["operations"]:
        times = row["milliseconds"]
        ratios = [f"{times[form] / times['kernel']:.2f} x" if form in times else "-" for form in FORMS[1:]]
        lines.append(f"| {row['operation']} | {row['dtype']} | {row['pass']} | {times['kernel']:.2f} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def measure(program: pathlib.Path, chosen: argparse.Namespace) -> list:
    command = [program, "--benchmark_format=json", f"--benchmark_min_time={chosen.seconds}", f"--benchmark_filter={chosen.only}"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(chosen.threads)))
    if done.returncode != 0:
        sys.exit(f"bench-ops: {program} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    rows = {}
    for line in json.loads(done.stdout)["benchmarks"]:
        operation, dtype, form, which = line["name"].removesuffix("/real_time").split("/")
        row = rows.setdefault((operation, dtype, which), {"operation": operation, "dtype": dtype, "pass": which, "milliseconds": {}})
        row["milliseconds"][form] = line["real_time"]
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/bench/ops_bench")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="default 2")
    parser.add_argument("--seconds", type=float, default=0.2, help="each is repeated so long (default 0.2)")
    parser.add_argument("--only", default=".", help="a regular expression of names, such as attention.*bf16")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/ops.json")
    chosen = parser.parse_args()
    result = {"date": datetime.date.today().isoformat(), "processor": processor(), "threads": chosen.threads,
              "operations": measure(chosen.program, chosen)}  # fmt: skip
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
