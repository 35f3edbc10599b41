#!/usr/bin/env python3
"""What a model loses in fewer bits: its loss on held-out text and a task's score in fp32, bf16, int8 and int4, as a table.

    scripts/quality_table.py --model runs/books --text held_out.txt
    scripts/quality_table.py --model runs/books --text held_out.txt --task glue_sst2 --task-model runs/sst2 --data DATA --rank

Quantised models are made by `switchyard convert` in a temporary folder, of each model that is given, and computed in bf16. Differences are to fp32. The token
accuracy is the share of masked-out tokens that the model puts first.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORMS = ("fp32", "bf16", "int8", "int4")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--model", required=True, help="model directory, or a run's folder")
    parser.add_argument("--text", nargs="+", help="held-out text")
    parser.add_argument("--max-examples", type=int, default=0, help="segments of the text; 0: all")
    parser.add_argument("--encoder-length", type=int, default=512)
    parser.add_argument("--task", help="as of switchyard eval; its data in the folder --data")
    parser.add_argument("--task-model", help="the model that is scored on the task (default: --model)")
    parser.add_argument("--data", default=".")
    parser.add_argument("--rank", action="store_true", help="choose the likeliest label instead of generating it")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    chosen = parser.parse_args()
    if not chosen.text and not chosen.task:
        parser.error("give --text, --task or both")
    return chosen


def run(program, *arguments):
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"quality_table: {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def in_form(program, model, form, folder):
    """The model to open for a form, and the precision to compute in."""
    if form in ("fp32", "bf16"):
        return model, form
    target = folder / f"{pathlib.Path(model).name}-{form}"
    if not target.exists():
        run(program, "convert", "--from", model, "--to", target, "--dtype", form)
    return target, "bf16"


def bytes_of(program, model):
    return json.loads(run(program, "inspect", model, "--json"))["bytes"]


def measure(chosen, form, folder):
    common = ["--json", *(["--threads", chosen.threads] if chosen.threads else [])]
    model, dtype = in_form(chosen.program, chosen.model, form, folder)
    figures = {"form": form, "bytes": bytes_of(chosen.program, model)}
    if form == "bf16":
        figures["bytes"] //= 2  # the file holds fp32
    if chosen.text:
        loss = json.loads(run(chosen.program, "eval", "--model", model, "--dtype", dtype, "--text", *chosen.text, "--max-examples", chosen.max_examples,
                              "--encoder-length", chosen.encoder_length, *common))  # fmt: skip
        figures |= {"loss": loss["loss"], "token_accuracy": loss["accuracy"], "tokens": loss["tokens"]}
    if chosen.task:
        model, dtype = in_form(chosen.program, chosen.task_model or chosen.model, form, folder)
        score = json.loads(run(chosen.program, "eval", "--model", model, "--dtype", dtype, "--task", chosen.task, "--data", chosen.data,
                               *(["--rank"] if chosen.rank else []), *common))  # fmt: skip
        figures |= {"metrics": score["metrics"], "examples": score["examples"]}
    return figures


def table(rows):
    """Markdown."""
    base = rows[0]
    names = [*(("loss", "token_accuracy") if "loss" in base else ()), *base.get("metrics", {})]

    def value(row, name):
        return row[name] if name in row else row["metrics"][name]

    lines = ["| weights | bytes | " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * (2 + len(names)) + "|"]
    for row in rows:
        cells = [f"{value(row, name):.4f} ({value(row, name) - value(base, name):+.4f})" for name in names]
        lines.append(f"| {row['form']} | {row['bytes'] / 1e6:.1f} MB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    chosen = options()
    with tempfile.TemporaryDirectory(prefix="switchyard-quality-") as folder:
        rows = [measure(chosen, form, pathlib.Path(folder)) for form in FORMS]
    print(json.dumps(rows) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
