#!/usr/bin/env python3
"""What a pre-trained sparse model is for, at the size of minutes: the studies behind docs/results.md.

    scripts/study_downstream.py fine_tuning  [--tasks glue_sst2 ...] [--models dense ...] [--seeds 0 1 ...] [--pretraining-steps N]
                                             [--data FOLDER] [--out runs/downstream] [--threads N]
    scripts/study_downstream.py distillation ...

fine_tuning: pre-trains a sparse model and its dense twin (configs/study/pretrain.toml), then trains both on five tasks from these weights and,
where an answer is a label, from random ones, with the paper's recipe (configs/study/fine_tune.toml), two seeds each. Each of the four starts has the rate that was best for it on
SST-2 with a third seed.
distillation: trains sparse teachers of 8, 16 and 32 experts, and their dense twin (configs/study/distillation.toml) on hard labels alone and beside
them, two seeds each.

Text, held-out part and vocabulary are those of scripts/study_learning.py. FOLDER (default: $SWITCHYARD_DATA, else ../shared/data) holds pretrain_en
and the tasks' folders.
A run that was cut short is continued; one that is whole is not repeated. Writes OUT/STUDY/study.json, its page report.html beside it and
bench/results/STUDY.json, and prints the page's tables in Markdown.
"""

import argparse
import collections
import dataclasses
import gzip
import json
import os
import pathlib
import statistics
import subprocess

import study_learning

ROOT, PROGRAM, PRESETS = study_learning.ROOT, study_learning.PROGRAM, study_learning.PRESETS
CONFIGS = ROOT / "configs/study"
SEEDS = [0, 1]
SWEEP_SEED = 2
PRETRAINING_STEPS = 600
RATES = (0.01, 0.03)
EXPERTS = (8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Task:
    name: str
    title: str
    encoder_length: int
    decoder_length: int
    steps: int
    examples: int  # of the dev split, the first
    metrics: dict[str, str]  # metric: its column
    is_ranked: bool = True  # the likelier label, else generated text


TASKS = (
    Task("glue_sst2", "SST-2", 48, 8, 200, 500, {"accuracy": "SST-2 accuracy"}),
    Task("glue_cola", "CoLA", 48, 8, 200, 1043, {"matthews_corrcoef": "CoLA Matthews"}),
    Task("superglue_boolq", "BoolQ", 256, 8, 60, 500, {"accuracy": "BoolQ accuracy"}),
    Task("squad", "SQuAD", 256, 24, 100, 200, {"em": "SQuAD EM", "f1": "SQuAD F1"}, is_ranked=False),
    Task("scitldr", "SciTLDR", 256, 48, 60, 100, {"rouge2": "SciTLDR ROUGE-2", "rougeLsum": "SciTLDR ROUGE-L"}, is_ranked=False),
)


def quoted(value: object) -> str:
    return json.dumps(str(value))


def evaluations(folder: pathlib.Path) -> list[dict]:
    if not (folder / "metrics.jsonl").exists():
        return []
    return [line for line in map(json.loads, open(folder / "metrics.jsonl")) if "eval_seconds" in line]


def curve(run: list[dict], key: str) -> list[list[float]]:
    return [[line["step"], line[key]] for line in run if key in line]


class Study:
    def __init__(self, options: argparse.Namespace):
        self.out, self.data, self.threads = options.out.resolve(), options.data.resolve(), options.threads
        self.tasks = [task for task in TASKS if task.name in options.tasks]
        self.kinds = [kind for kind in PRESETS if kind in options.models]
        self.part = "" if len(self.tasks) == len(TASKS) else " --tasks " + " ".join(options.tasks)
        self.part += "" if len(self.kinds) == len(PRESETS) else " --models " + " ".join(options.models)
        self.seeds, self.pretraining_steps = options.seeds, options.pretraining_steps
        self.part += "" if self.seeds == SEEDS else " --seeds " + " ".join(map(str, self.seeds))
        self.suffix = ""  # of folders and results
        if self.pretraining_steps != PRETRAINING_STEPS:
            self.suffix = f"_{self.pretraining_steps}"
            self.part += f" --pretraining-steps {self.pretraining_steps}"
        study_learning.prepare(self.data / "pretrain_en", self.out)

    def train(self, command: list, config: str, name: str, settings: list[str], steps: int) -> list[dict]:
        """The evaluations of a run, made or continued first if it is not whole."""
        folder = self.out / name
        done = evaluations(folder)
        if not done or done[-1]["step"] < steps:
            common = [f'data.vocab={quoted(self.out / "spiece.model")}', f'data.cache={quoted(self.out / ".cache")}', f"train.steps={steps}"]
            if "data.task" in " ".join(settings):
                common += [f"data.folder={quoted(self.data)}"]
            else:
                common += [f'data.{key}=["{self.out}/{name}.jsonl"]' for key, name in (("text", "train"), ("eval_text", "held_out"))]
            arguments = [part for setting in common + settings for part in ("--set", setting)]
            subprocess.run([PROGRAM, *command, CONFIGS / f"{config}.toml", "--out", folder, "--resume", "--quiet", "--threads", str(self.threads),
                            *arguments], check=True, stdout=subprocess.DEVNULL)
            done = evaluations(folder)
        return done

    def finish(self, study: str, document: dict, extra: dict) -> None:
        """Writes what `switchyard report` draws, draws it, prints its tables and keeps all figures with the project."""
        folder = self.out / (study + self.suffix)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.json").write_text(json.dumps(document, indent=1) + "\n")
        done = subprocess.run([PROGRAM, "report", folder, "--out", folder / "report.html", "--json"], check=True, stdout=subprocess.PIPE, text=True)
        for table in json.loads(done.stdout)["studies"][0]["tables"]:
            print(f"\n{table['title']}\n\n| | " + " | ".join(table["columns"]) + " |\n|---|" + "---|" * len(table["columns"]))
            for row in table["rows"]:
                print("| " + " | ".join(row) + " |")
        result = {"command": f"scripts/study_downstream.py {study}{self.part}", **extra, **document}
        (ROOT / f"bench/results/{study}{self.suffix}.json").write_text(json.dumps(result, indent=1) + "\n")

    # Fine-tuning

    def pretrain(self, kind: str) -> list[dict]:
        return self.train(["train"], "pretrain", f"pretrain{self.suffix}/{kind}", [f'model.preset="{PRESETS[kind]}"'], self.pretraining_steps)

    def fine_tune(self, task: Task, kind: str, start: str, rate: float, seed: int) -> list[dict]:
        model = f'model.init={quoted(self.out / f"pretrain{self.suffix}" / kind)}' if start == "pre-trained" else f'model.preset="{PRESETS[kind]}"'
        every = min(50, task.steps) if task.is_ranked else task.steps
        settings = [model, f"data.task={quoted(task.name)}", f'data.eval_tasks=["{task.name}"]', f"data.encoder_length={task.encoder_length}",
                    f"data.decoder_length={task.decoder_length}", f"train.eval_task_examples={task.examples}", f"train.eval_every={every}",
                    f"train.eval_rank={json.dumps(task.is_ranked)}", f"train.best_metric={quoted(f'eval_{task.name}_{list(task.metrics)[0]}')}",
                    f"optimizer.learning_rate={rate}", f"train.seed={seed}"]
        return self.train(["train"], "fine_tune", f"fine_tuned{self.suffix if start == 'pre-trained' else ''}/{task.name}/{kind}-{start}-{rate}-{seed}", settings, task.steps)

    def sweep(self, kind: str, start: str) -> dict[float, float]:
        """Accuracy on SST-2 at its last step for each rate."""
        return {rate: self.fine_tune(TASKS[0], kind, start, rate, SWEEP_SEED)[-1]["eval_glue_sst2_accuracy"] for rate in RATES}

    def most_frequent_label(self, task: Task) -> float:
        """Accuracy of the one answer that is right most often on the examples that are scored."""
        with gzip.open(self.data / f"{task.name}/dev.jsonl.gz", "rt") as lines:
            labels = [str(json.loads(line)["label"]) for line, _ in zip(lines, range(task.examples))]
        return 100 * collections.Counter(labels).most_common(1)[0][1] / len(labels)

    def fine_tuning(self) -> None:
        losses = {kind: self.pretrain(kind) for kind in self.kinds}
        starts = [(kind, start) for start in ("pre-trained", "random") for kind in self.kinds]
        sweeps = {begin: self.sweep(*begin) for begin in starts}
        rates = {begin: max(sweeps[begin], key=sweeps[begin].get) for begin in starts}
        runs = {(task.name, begin): [self.fine_tune(task, *begin, rates[begin], seed) for seed in self.seeds]
                for task in self.tasks for begin in starts if task.is_ranked or begin[1] == "pre-trained"}

        def cells(begin: tuple) -> list:
            """By column, at the last step, one a seed."""
            return [[run[-1][f"eval_{task.name}_{metric}"] for run in runs[task.name, begin]] if (task.name, begin) in runs else None
                    for task in self.tasks for metric in task.metrics]

        names = {begin: f"{PRESETS[begin[0]]}, {begin[1]}" for begin in starts}
        frequent = [[self.most_frequent_label(task)] if metric == "accuracy" else ([0.0] if metric == "matthews_corrcoef" else None)
                    for task in self.tasks for metric in task.metrics]
        columns = [{"name": column, "digits": 1, "best": "highest"} for task in self.tasks for column in task.metrics.values()]
        ranked = [task for task in self.tasks if task.is_ranked]
        document = {
            "title": "Fine-tuning",
            "about": f"Pre-training: {losses[self.kinds[0]][-1]['step']} steps. Mean of {len(self.seeds)} seeds and its standard error.",
            "tables": [
                {"title": "Tasks after fine-tuning", "columns": columns,
                 "about": ", ".join(f"{task.title} {task.steps} steps" for task in self.tasks) + "; at the last step, on the first examples of dev.",
                 "rows": [{"name": names[begin], "cells": cells(begin)} for begin in starts] +
                         [{"name": "the most frequent label", "cells": frequent}]},
                {"title": "Upstream", "columns": [{"name": "held-out loss", "digits": 4}],
                 "rows": [{"name": PRESETS[kind], "cells": [[losses[kind][-1]["eval_loss"]]]} for kind in self.kinds]},
                {"title": "Rates", "about": f"SST-2 accuracy with seed {SWEEP_SEED}, which is in no other table.",
                 "columns": [{"name": str(rate), "digits": 1} for rate in RATES],
                 "rows": [{"name": names[begin], "cells": [[value] for value in sweeps[begin].values()]} for begin in starts]},
            ],
            "charts": [{"title": column, "x_label": "step", "y_label": column,
                        "lines": [{"name": names[begin], "runs": [curve(run, f"eval_{task.name}_{metric}") for run in runs[task.name, begin]]}
                                  for begin in starts]}
                       for task in ranked for metric, column in task.metrics.items()],
        }
        self.finish("fine_tuning", document, {"rates": {names[begin]: rates[begin] for begin in starts}})

    # Distillation

    STEPS = 300

    def sparse(self, experts: int) -> list[dict]:
        return self.train(["train"], "distillation", f"teachers/{experts}",
                          ['model.preset="switch-nano-8"', f"routing.num_experts={experts}"], self.STEPS)

    def student(self, name: str, experts: int | None, settings: list[str]) -> list[list[dict]]:
        """A run a seed: on hard labels alone where there is no teacher."""
        command = ["distill", "--teacher", self.out / f"teachers/{experts}"] if experts else ["train"]
        return [self.train(command, "distillation", f"students/{name}-{seed}", [*settings, f"train.seed={seed}"], self.STEPS) for seed in self.seeds]

    def parameters(self, name: str) -> int:
        done = subprocess.run([PROGRAM, "inspect", self.out / name, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)["parameters"]

    def distillation(self) -> None:
        teachers = {experts: self.sparse(experts)[-1]["eval_loss"] for experts in EXPERTS}
        students = {
            "hard labels alone": self.student("hard", None, []),
            "teacher's probabilities": self.student("probabilities-8", 8, ["distill.inherit=false"]),
            "teacher's non-expert weights": self.student("weights-8", 8, ["distill.teacher_weight=0"]),
            "both": self.student("both-8", 8, []),
        }
        by_experts = {experts: students["both"] if experts == 8 else self.student(f"both-{experts}", experts, []) for experts in EXPERTS}
        last = {name: [run[-1]["eval_loss"] for run in runs] for name, runs in students.items()}
        baseline = statistics.mean(last["hard labels alone"])

        def kept(losses: list[float], teacher: float) -> list[float]:
            return [100 * (loss - baseline) / (teacher - baseline) for loss in losses]

        size = self.parameters("students/hard-0")
        techniques = [{"name": name, "cells": [losses, kept(losses, teachers[8])]} for name, losses in last.items()]
        sizes = []
        for experts, runs in by_experts.items():
            losses = [run[-1]["eval_loss"] for run in runs]
            count = self.parameters(f"teachers/{experts}")
            sizes.append({"name": f"{experts} experts", "cells": [f"{count / 1e6:.2f} M", [100 * (1 - size / count)], [teachers[experts]], losses,
                                                                  kept(losses, teachers[experts])]})
        document = {
            "title": "Distillation",
            "about": f"Every model: {self.STEPS} steps on the same text. Mean of {len(self.seeds)} seeds of the student and its standard error.",
            "tables": [
                {"title": "What a student of eight experts takes over",
                 "columns": [{"name": "held-out loss", "digits": 4, "best": "lowest"}, {"name": "share of the teacher's gain, %", "digits": 0}],
                 "rows": techniques + [{"name": "(the teacher)", "cells": [f"{teachers[8]:.4f}", [100]]}]},
                {"title": "Teachers of different sizes", "about": f"The student has {size / 1e6:.2f} M parameters and takes over weights and probabilities.",
                 "columns": [{"name": "parameters"}, {"name": "compressed by, %", "digits": 0}, {"name": "teacher's loss", "digits": 4},
                             {"name": "student's loss", "digits": 4, "best": "lowest"}, {"name": "share of the teacher's gain, %", "digits": 0}],
                 "rows": sizes},
            ],
            "charts": [{"title": "Held-out loss of the students", "x_label": "step", "y_label": "nats per token",
                        "lines": [{"name": name, "runs": [curve(run, "eval_loss") for run in runs]} for name, runs in students.items()]},
                       {"title": "Students of teachers of different sizes", "x_label": "step", "y_label": "nats per token",
                        "lines": [{"name": f"{experts} experts", "runs": [curve(run, "eval_loss") for run in runs]} for experts, runs in by_experts.items()]}],
        }
        self.finish("distillation", document, {})


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["fine_tuning", "distillation"])
    parser.add_argument("--tasks", nargs="+", choices=[task.name for task in TASKS], default=[task.name for task in TASKS], help="of fine_tuning")
    parser.add_argument("--models", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="of fine_tuning")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help=f"but {SWEEP_SEED}, which chooses rates")
    parser.add_argument("--pretraining-steps", type=int, default=PRETRAINING_STEPS, help="of fine_tuning")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/downstream")
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: all cores")
    options = parser.parse_args()
    getattr(Study(options), options.study)()


if __name__ == "__main__":
    main()
