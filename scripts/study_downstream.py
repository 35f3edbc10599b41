#!/usr/bin/env python3
"""What a pre-trained sparse model is for, at the size of minutes: the studies behind docs/results.md.

    scripts/study_downstream.py fine_tuning  [--data FOLDER] [--out runs/study] [--threads N]
    scripts/study_downstream.py distillation ...

fine_tuning: pre-trains a sparse model and its dense twin (configs/study/pretrain_*.toml), then trains both on SST-2 from these weights and
from random ones, two seeds each. distillation: trains the dense twin beside the sparse model as its teacher, and alone on hard labels, at equal
steps, two seeds each. Text, held-out part and vocabulary are those of scripts/study_learning.py. FOLDER (default: $SWITCHYARD_DATA, else
../shared/data) holds pretrain_en and glue_sst2. A run that was cut short is continued; one that is whole is not repeated. Prints tables in
Markdown and writes bench/results/STUDY.json.
"""

import argparse
import json
import os
import pathlib
import subprocess

import study_learning

ROOT = study_learning.ROOT
CONFIGS = ROOT / "configs/study"
PRESETS = study_learning.PRESETS
SEEDS = (0, 1)


class Study:
    def __init__(self, options):
        self.out, self.data, self.threads = options.out.resolve(), options.data.resolve(), options.threads
        study_learning.prepare(self.data / "pretrain_en", self.out)

    def train(self, command: list, config: str, name: str, settings: list[str]) -> list[dict]:
        """The evaluations of a run, made or continued first if it is not whole."""
        folder = self.out / name
        text = [f'data.text=["{self.out}/train.jsonl"]', f'data.eval_text=["{self.out}/held_out.jsonl"]']
        common = [f'data.vocab="{self.out}/spiece.model"', f'data.cache="{self.out}/.cache"']
        if config == "fine_tune":
            common.append(f'data.folder="{self.data}"')
        else:
            common += text
        arguments = [part for setting in common + settings for part in ("--set", setting)]
        subprocess.run([study_learning.PROGRAM, *command, CONFIGS / f"{config}.toml", "--out", folder, "--resume", "--quiet",
                        "--threads", str(self.threads), *arguments], check=True, stdout=subprocess.DEVNULL)
        lines = map(json.loads, open(folder / "metrics.jsonl"))
        return [line for line in lines if "eval_seconds" in line]

    def pretrain(self, kind: str) -> float:
        return self.train(["train"], f"pretrain_{kind}", f"pretrain/{kind}", [])[-1]["eval_loss"]

    def fine_tuning(self) -> dict:
        result = {"held_out_loss_after_pretraining": {kind: self.pretrain(kind) for kind in PRESETS}, "runs": []}
        for seed in SEEDS:
            for kind, preset in PRESETS.items():
                for start in ("pretrained", "random"):
                    model = f'model.init="{self.out}/pretrain/{kind}"' if start == "pretrained" else f'model.preset="{preset}"'
                    curve = self.train(["train"], "fine_tune", f"sst2/{kind}-{start}-{seed}", [model, f"train.seed={seed}"])
                    accuracy = {line["step"]: line["eval_glue_sst2_accuracy"] for line in curve}
                    result["runs"].append({"model": preset, "start": start, "seed": seed, "accuracy": accuracy})
        print("| model | start | seed | " + " | ".join(f"step {step}" for step in accuracy) + " |")
        print("|---|---|---|" + "---|" * len(accuracy))
        for run in result["runs"]:
            print(f"| {run['model']} | {run['start']} | {run['seed']} | " + " | ".join(f"{value:.1f}" for value in run["accuracy"].values()) + " |")
        return result

    def distillation(self) -> dict:
        result = {"teacher_loss": self.pretrain("sparse"), "runs": []}
        teacher = ["distill", "--teacher", self.out / "pretrain/sparse"]
        for seed in SEEDS:
            for name, command, settings in (("hard labels alone", ["train"], []),
                                            ("teacher's weights and probabilities", teacher, []),
                                            ("teacher's probabilities alone", teacher, ["distill.inherit=false"])):
                curve = self.train(command, "student", f"students/{name.replace(' ', '_')}-{seed}", settings + [f"train.seed={seed}"])
                result["runs"].append({"training": name, "seed": seed, "eval_loss": {line["step"]: line["eval_loss"] for line in curve}})
        names = list(dict.fromkeys(run["training"] for run in result["runs"]))
        last = {name: [list(run["eval_loss"].values())[-1] for run in result["runs"] if run["training"] == name] for name in names}
        means = {name: sum(values) / len(values) for name, values in last.items()}
        baseline = means["hard labels alone"]
        print("| dense student | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | share of the teacher's gain |")
        print("|---|" + "---|" * (len(SEEDS) + 2))
        for name in names:
            share = (means[name] - baseline) / (result["teacher_loss"] - baseline)
            print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in last[name]) + f" | {means[name]:.4f} | {100 * share:.0f} % |")
        print(f"| (the teacher) | | | {result['teacher_loss']:.4f} | 100 % |")
        return result


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["fine_tuning", "distillation"])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/study")
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: all cores")
    options = parser.parse_args()
    result = getattr(Study(options), options.study)()
    path = ROOT / f"bench/results/{options.study}.json"
    path.write_text(json.dumps({"command": f"scripts/study_downstream.py {options.study}", **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
