#!/usr/bin/env python3
"""Weak and strong scaling: measured on 1, 2 and 4 processes of one pinned thread, simulated on 8 to 2,048 devices;
and processes of one thread beside one process of as many threads.

    scripts/scaling.py --text PATH... --out runs/scaling [--preset switch-mini-8] [--plan switch-base-128] [--device h200]

Trains a short run of each number of processes, data and expert parallel; replays the steps of the first on the
planner's layouts; writes OUT/scaling.json and OUT/report.html. Processes beyond the machine's cores share them, which
the report's efficiency then shows.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SWITCHYARD_PROGRAM", str(ROOT / "build/release/switchyard"))

RUN = """
[model]
preset = "{preset}"
[routing]
group_size = 512
[data]
text = [{text}]
vocab = "{vocab}"
encoder_length = 512
[train]
steps = {steps}
batch_size = {batch}
eval_every = 0
save_every = 0
[parallel]
data = {data}
expert = {expert}
"""


def checked(*arguments, **options):
    done = subprocess.run(list(map(str, arguments)), **options)
    if done.returncode != 0:
        sys.exit(f"scaling: {' '.join(map(str, arguments[:3]))} ... failed")
    return done


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def train(options, name, count, expert, batch, threads=1):
    """One run of `count` processes, each on cores of its own as far as there are any; tokens a second, the median."""
    folder = options.out / name
    run = options.out / f"{name}.toml"
    text = ", ".join(json.dumps(str(path.resolve())) for path in options.text)
    run.write_text(RUN.format(preset=options.preset, text=text, vocab=options.out.resolve() / "spiece.model",
                              steps=options.steps, batch=batch, data=count // expert, expert=expert))
    cores, port, ranks = sorted(os.sched_getaffinity(0)), free_port(), []
    for rank in range(count):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive" if count > 1 else "active")
        if count > 1:
            environment |= dict(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count),
                                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        own = {cores[(rank * threads + thread) % len(cores)] for thread in range(threads)}
        ranks.append(subprocess.Popen([PROGRAM, "train", str(run), "--out", str(folder), "--quiet", "--threads", str(threads)],
                                      env=environment, preexec_fn=lambda own=own: os.sched_setaffinity(0, own)))
    if any([rank.wait() for rank in ranks]):
        sys.exit(f"scaling: the run {name} failed")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["tokens_per_second"] for line in lines[len(lines) // 4:] if "tokens_per_second" in line)


def measure(options):
    """Points of weak and strong scaling, data parallel and, as further lists, expert parallel."""
    study = {}
    for axis, expert_of in (("", lambda count: 1), ("expert_", lambda count: count)):
        for kind in ("weak", "strong"):
            points = []
            for count in (1, 2, 4):
                batch = options.batch * (count if kind == "weak" else 1)
                speed = train(options, f"{axis}{kind}-{count}", count, expert_of(count), batch)
                points.append({"devices": count, "batch_size": batch, "tokens_per_second": speed})
                points[-1]["efficiency"] = speed / count / points[0]["tokens_per_second"]
                print(f"{axis or 'data_'}{kind} {count}: {speed:.0f} tokens/s, {100 * points[-1]['efficiency']:.0f} %", flush=True)
            study[axis + kind] = points
    return study


def beside_threads(options):
    """Ranks of one thread and one process of as many threads, the same batch, in turn; medians over the rounds."""
    count = min(2, len(os.sched_getaffinity(0)))
    (options.out / "beside").mkdir(exist_ok=True)
    kinds = {"one process": (1, 1, count), "data": (count, 1, 1), "experts": (count, count, 1)}
    rounds = {kind: [] for kind in kinds}
    for number in range(options.rounds):
        for kind, (processes, expert, threads) in kinds.items():
            name = f"beside/{kind.replace(' ', '-')}-{number}"
            rounds[kind].append(train(options, name, processes, expert, options.batch, threads))
    medians = {kind: statistics.median(figures) for kind, figures in rounds.items()}
    for kind, figure in medians.items():
        print(f"{kind}: {figure:.0f} tokens/s ({min(rounds[kind]):.0f} to {max(rounds[kind]):.0f}), "
              f"{figure / medians['one process']:.3f} of one process of {count} threads", flush=True)
    return {"threads": count, "tokens_per_second": rounds, "medians": medians}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--preset", default="switch-mini-8", help="what is trained")
    parser.add_argument("--plan", default="switch-base-128", help="what is simulated")
    parser.add_argument("--device", default="h200")
    parser.add_argument("--devices", default="8..2048")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step on one process")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3, help="of processes beside threads")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "spiece.model").exists():
        checked(PROGRAM, "vocab", "train", "--text", *options.text, "--size", 8000, "--out", options.out / "spiece.model")
    beside = beside_threads(options)
    measured = measure(options)
    done = checked(PROGRAM, "plan", options.plan, "--scaling", options.devices, "--device", options.device,
                   "--measured", options.out / "weak-1", "--json", stdout=subprocess.PIPE, text=True)
    study = {"beside_threads": beside, "measured": measured, "simulated": json.loads(done.stdout)}
    (options.out / "scaling.json").write_text(json.dumps(study, indent=1) + "\n")
    checked(PROGRAM, "report", options.out, "--out", options.out / "report.html")


if __name__ == "__main__":
    main()
