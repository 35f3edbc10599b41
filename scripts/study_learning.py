#!/usr/bin/env python3
"""Does the sparse model learn more than its dense twin? The study behind docs/results.md.

    scripts/study_learning.py [--data FOLDER] [--out runs/study] [--steps 500] [--rates 0.02 0.03 0.05]

Takes English text of FOLDER (default: $SWITCHYARD_DATA/pretrain_en, else ../shared/data/pretrain_en), holds out every 40th
document, makes a vocabulary of 8,000 pieces, and trains `switch-nano-8` and `t5-nano` (equal FLOPs a token, same data in
the same order) by `switchyard compare`: first each rate of a sweep with seed 0, then both at their best rate with seed 1.
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


def compare(name: str, runs: list[tuple[str, float]], out: pathlib.Path, steps: int, seed: int) -> dict:
    """Outcome of each run by name; `runs` are (kind, rate). Not repeated if it has finished before."""
    folder = out / name
    result = folder / "comparison.json"
    if not result.exists():
        folder.mkdir(exist_ok=True)
        files = [write_run(folder / f"{kind}-{rate}.toml", kind, rate, out, steps, seed) for kind, rate in runs]
        subprocess.run([PROGRAM, "compare", *files, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    return {run["name"]: run for run in json.loads(result.read_text())["runs"]}


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data) / "pretrain_en")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/study")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.03, 0.05])
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"study: no text at {options.data}; pass --data, a folder with {', '.join(CORPORA)} as .jsonl.gz")
    prepare(options.data, options.out)

    sweep = compare("seed0", [(kind, rate) for rate in options.rates for kind in PRESETS], options.out, options.steps, 0)
    best = {kind: min(options.rates, key=lambda rate: sweep[f"{kind}-{rate}"]["loss_at_equal_step"]) for kind in PRESETS}
    second = compare("seed1", list(best.items()), options.out, options.steps, 1)

    print(f"\n{options.steps} steps, held-out loss in nats per target token\n")
    print("| seed | rate | sparse, equal steps | dense, equal steps | sparse, equal time | dense, equal time |")
    print("|---|---|---|---|---|---|")
    for rate in options.rates:
        row(0, f"{rate}", sweep[f"sparse-{rate}"], sweep[f"dense-{rate}"])
    for seed, runs in ((0, sweep), (1, second)):
        row(seed, f"best of each ({best['sparse']}, {best['dense']})", *(runs[f"{kind}-{best[kind]}"] for kind in PRESETS))


def row(seed: int, rate: str, sparse: dict, dense: dict) -> None:
    figures = [run[key] for key in ("loss_at_equal_step", "loss_at_equal_time") for run in (sparse, dense)]
    print(f"| {seed} | {rate} | " + " | ".join(f"{value:.4f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
