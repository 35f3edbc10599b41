#!/usr/bin/env python3
"""Does the sparse model learn more than its dense twin? The study behind docs/results.md.

    scripts/study_learning.py [--data FOLDER] [--out runs/study] [--steps 500] [--rates 0.01 0.03 0.09]

Takes English text of FOLDER (default: $SWITCHYARD_DATA/pretrain_en, else ../shared/data/pretrain_en), holds out every 40th
document, makes a vocabulary of 8,000 pieces, and trains `switch-nano-8` and `t5-nano` (equal FLOPs a token, same data in
the same order) by `switchyard compare`: each rate of a sweep with seed 0, then both at their best rate with seed 1.
Prints held-out loss at equal steps and at equal training time as a table in Markdown.
"""

import argparse
import gzip
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("PROGRAM", str(ROOT / "build/release/switchyard"))
PRESETS = {"sparse": "switch-nano-8", "dense": "t5-nano"}
CORPORA = ("novels", "wikipedia_squad", "textbooks", "speeches")
HELD_OUT_EVERY = 40


def prepare(data: pathlib.Path, out: pathlib.Path) -> None:
    """out/train.jsonl, out/held_out.jsonl and out/spiece.model, unless they are there."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "held_out.jsonl").exists():
        with open(out / "train.jsonl", "w") as train, open(out / "held_out.jsonl.part", "w") as held_out:
            for corpus in CORPORA:
                with gzip.open(data / f"{corpus}.jsonl.gz", "rt") as lines:
                    for number, line in enumerate(lines):
                        (held_out if number % HELD_OUT_EVERY == 7 else train).write(line)
        (out / "held_out.jsonl.part").rename(out / "held_out.jsonl")
    if not (out / "spiece.model").exists():
        subprocess.run([PROGRAM, "vocab", "train", "--text", out / "train.jsonl", "--size", "8000", "--out", out / "spiece.model"],
                       check=True)


def write_run(path: pathlib.Path, kind: str, rate: float, out: pathlib.Path, steps: int, seed: int) -> pathlib.Path:
    template = (ROOT / "configs/study.toml").read_text()
    path.write_text(template.format(preset=PRESETS[kind], rate=rate, folder=out.resolve(), steps=steps, seed=seed))
    return path


def compare(name: str, rates: dict[str, float], out: pathlib.Path, steps: int, seed: int) -> dict[str, dict]:
    """Outcome of the sparse and the dense run, each at its rate. Not repeated if it has finished before."""
    folder = out / name
    result = folder / "comparison.json"
    if not result.exists():
        folder.mkdir(exist_ok=True)
        files = [write_run(folder / f"{kind}.toml", kind, rate, out, steps, seed) for kind, rate in rates.items()]
        subprocess.run([PROGRAM, "compare", *files, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    return {run["name"]: run for run in json.loads(result.read_text())["runs"]}


def loss_at_time(run: dict, seconds: float) -> float:
    """Held-out loss after so much training time, interpolated between evaluations."""
    for before, after in zip(run["curve"], run["curve"][1:]):
        if after["seconds"] >= seconds:
            share = (seconds - before["seconds"]) / (after["seconds"] - before["seconds"])
            return before["eval_loss"] + share * (after["eval_loss"] - before["eval_loss"])
    return run["curve"][-1]["eval_loss"]


def row(seed: int, rates: str, sparse: dict, dense: dict) -> None:
    seconds = min(sparse["seconds"], dense["seconds"])
    figures = [run["curve"][-1]["eval_loss"] for run in (sparse, dense)]
    figures += [loss_at_time(run, seconds) for run in (sparse, dense)]
    print(f"| {seed} | {rates} | " + " | ".join(f"{value:.4f}" for value in figures) + " |")


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data) / "pretrain_en")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/study")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.09])
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"study: no text at {options.data}; pass --data, a folder with {', '.join(CORPORA)} as .jsonl.gz")
    prepare(options.data, options.out)

    sweep = {rate: compare(f"seed0-{rate}", dict.fromkeys(PRESETS, rate), options.out, options.steps, 0) for rate in options.rates}
    best = {kind: min(sweep, key=lambda rate: sweep[rate][kind]["curve"][-1]["eval_loss"]) for kind in PRESETS}
    second = compare("seed1", best, options.out, options.steps, 1)

    print(f"\n{options.steps} steps, held-out loss in nats per target token\n")
    print("| seed | rate | sparse, equal steps | dense, equal steps | sparse, equal time | dense, equal time |")
    print("|---|---|---|---|---|---|")
    for rate, runs in sweep.items():
        row(0, str(rate), runs["sparse"], runs["dense"])
    chosen = f"best of each: {best['sparse']}, {best['dense']}"
    row(0, chosen, sweep[best["sparse"]]["sparse"], sweep[best["dense"]]["dense"])
    row(1, chosen, second["sparse"], second["dense"])


if __name__ == "__main__":
    main()
