#!/usr/bin/env python3
"""A sparse model of 101 languages beside its dense twin (Switch section 4.3): the study behind docs/results.md.

    scripts/study_multilingual.py [--data FOLDER] [--out runs/multilingual] [--steps N] [--threads N]

FOLDER (default: $SWITCHYARD_DATA, else ../shared/data) holds multilingual/mc4_101, a file of JSON Lines for each language. Documents are held
out by a hash of their id, the same in every language, as the texts of some sources are translations of each other line by line; the
Universal Declaration of Human Rights is one document a language and is cut into runs of four lines, which are held out alike. A vocabulary with
every character and byte fallback is made of the training part, languages in proportion to size^0.3 (mT5), as in training. Then
configs/study/multilingual_sparse.toml and multilingual_dense.toml are trained with two seeds each. A run that was cut short is continued, one
that is whole is not repeated. Writes OUT/report.html and bench/results/multilingual.json, and prints tables in Markdown.
"""

import argparse
import gzip
import hashlib
import json
import os
import pathlib
import re
import statistics
import subprocess
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("PROGRAM", str(ROOT / "build/release/switchyard"))
KINDS = ("sparse", "dense")
SEEDS = (0, 1)
EXPONENT = 0.3
VOCABULARY = 24000
HELD_OUT_SHARE = 16  # one document of so many
DECLARATION_LINES = 4


def documents(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Text of each document, and what it is called in every language."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            name, text = re.sub("#.*", "", document["id"]), document["text"]
            if not name.startswith("udhr/"):
                yield name, text
                continue
            articles = text.split("\n")
            for first in range(0, len(articles), DECLARATION_LINES):
                yield f"udhr/{first}", "\n".join(articles[first : first + DECLARATION_LINES])


def is_held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0


def prepare(data: pathlib.Path, out: pathlib.Path) -> None:
    """OUT/train and OUT/held_out with a file a language, and OUT/spiece.model, unless they are there."""
    if not (out / "held_out").exists():
        for folder in ("train", "held_out.part"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted(data.glob("*.jsonl.gz")):
            language = path.name.removesuffix(".jsonl.gz")
            with open(out / f"train/{language}.jsonl", "w") as train, open(out / f"held_out.part/{language}.jsonl", "w") as held_out:
                for name, text in documents(path):
                    (held_out if is_held_out(name) else train).write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
        (out / "held_out.part").rename(out / "held_out")
    if not (out / "spiece.model").exists():
        subprocess.run([PROGRAM, "vocab", "train", "--text", out / "train", "--size", str(VOCABULARY), "--character-coverage", "1",
                        "--byte-fallback", "--exponent", str(EXPONENT), "--out", out / "spiece.model"], check=True)


def train(kind: str, seed: int, out: pathlib.Path, options: argparse.Namespace) -> pathlib.Path:
    folder = out / f"runs/{kind}-{seed}"
    settings = [f'data.eval_text=["{out}/held_out"]', f'data.vocab="{out}/spiece.model"', f'data.cache="{out}/.cache"', f"train.seed={seed}"]
    if options.steps:
        settings.append(f"train.steps={options.steps}")
    template = (ROOT / f"configs/study/multilingual_{kind}.toml").read_text()
    run = out / f"{kind}.toml"
    run.write_text(template.replace("../../runs/multilingual", str(out)))
    arguments = [part for setting in settings for part in ("--set", setting)]
    subprocess.run([PROGRAM, "train", run, "--out", folder, "--resume", "--quiet", "--threads", str(options.threads), *arguments], check=True,
                   stdout=subprocess.DEVNULL)
    return folder


def report(folders: list[pathlib.Path], page: pathlib.Path) -> list[dict]:
    """The comparison by language that the page shows."""
    done = subprocess.run([PROGRAM, "report", *folders, "--out", page, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["parts"]


def summary(parts: list[dict]) -> dict:
    speed_ups = [part["speed_up"] for part in parts]
    return {
        "languages": len(parts),
        "better": sum(part["improvement"] > 0 for part in parts),
        "mean_improvement": statistics.mean(part["improvement"] for part in parts),
        "mean_speed_up": statistics.mean(speed_ups),
        "median_speed_up": statistics.median(speed_ups),
        "least_speed_up": min(speed_ups),
        "largest_speed_up": max(speed_ups),
    }


def last_evaluation(folder: pathlib.Path) -> dict:
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    return [line for line in lines if "eval_loss" in line][-1]


def print_tables(result: dict) -> None:
    print("| run | seed | held-out loss, all languages |\n|---|---|---|")
    for run in result["runs"]:
        print(f"| {run['kind']} | {run['seed']} | {run['eval_loss']:.4f} |")
    print("\n| | languages that gain | mean gain, nats a token | speed-up, mean | median | least - largest |\n|---|---|---|---|---|---|")
    for name, row in [("both seeds", result["summary"])] + [(f"seed {seed}", row) for seed, row in result["summary_by_seed"].items()]:
        print(f"| {name} | {row['better']} of {row['languages']} | {row['mean_improvement']:.4f} | {row['mean_speed_up']:.2f} | "
              f"{row['median_speed_up']:.2f} | {row['least_speed_up']:.2f} - {row['largest_speed_up']:.2f} |")


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/multilingual")
    parser.add_argument("--steps", type=int, default=0, help="of each run; 0: as the run files say")
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: all cores")
    options = parser.parse_args()
    out = options.out.resolve()
    prepare(options.data / "multilingual/mc4_101", out)
    runs = {(kind, seed): train(kind, seed, out, options) for seed in SEEDS for kind in KINDS}
    parts = report(list(runs.values()), out / "report.html")
    by_seed = {seed: report([runs[kind, seed] for kind in KINDS], out / f"report-{seed}.html") for seed in SEEDS}
    result = {
        "command": "scripts/study_multilingual.py",
        "runs": [{"kind": kind, "seed": seed, **{key: value for key, value in last_evaluation(folder).items() if not key.startswith("eval_loss_")}}
                 for (kind, seed), folder in runs.items()],
        "summary": summary(parts),
        "summary_by_seed": {seed: summary(rows) for seed, rows in by_seed.items()},
        "languages": parts,
    }
    print_tables(result)
    (ROOT / "bench/results/multilingual.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
