#!/usr/bin/env python3
"""Scores a model by EleutherAI's lm-evaluation-harness twice, and compares the numbers.

    scripts/harness.py [--model MODEL]

Once against `switchyard serve`, by the harness's own local-completions (requests of ids with echo and logprobs), and once on the
model's folder through transformers. The task is scripts/harness/choices.yaml. The harness lives in an environment of its
own, build/harness, which borrows torch and transformers from the project's. Exits with 1 where a log-probability differs.
Without a model it trains a tiny one on the task's sentences.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import site
import subprocess
import sys
import tempfile
import threading
import venv

SOURCE = pathlib.Path(__file__).resolve().parent.parent
HARNESS = "lm_eval[api]==0.4.13"
FURTHER = ["accelerate==1.15.0"]  # what its transformers models import
TOLERANCE = 1e-3  # nats of a choice: two programs' sums in fp32
TASK = "switchyard_choices"
CHOICES = SOURCE / "scripts/harness/choices.jsonl"
RUN = """
[model]
preset = "switch-tiny-4"
[data]
text = ["text.txt"]
vocab = "spiece.model"
encoder_length = 32
[train]
steps = 200
batch_size = 8
eval_every = 0
save_every = 0
"""


def environment(folder):
    """The harness's python: made once, with the project's packages behind its own."""
    python = folder / "bin/python"
    if not (folder / "installed").exists():
        venv.create(folder, symlinks=True, with_pip=True, clear=True)
        packages = next((folder / "lib").glob("python3*")) / "site-packages"
        (packages / "project.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        print(f"installing {HARNESS} into {folder}", file=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", HARNESS, *FURTHER], check=True)
        (folder / "installed").touch()
    return python


def small_model(program, folder):
    """A model that has seen the task's sentences with their right words, trained in seconds."""
    rows = [json.loads(line) for line in CHOICES.read_text().splitlines()]
    sentences = [row["sentence"].replace("<extra_id_0>", row["choices"][row["answer"]].split(maxsplit=1)[1]) for row in rows]
    draw = random.Random(0)
    (folder / "text.txt").write_text("\n".join(" ".join(draw.sample(sentences, len(sentences))) for _ in range(200)))
    (folder / "run.toml").write_text(RUN)
    for command in (["vocab", "train", "--text", "text.txt", "--size", "100", "--out", "spiece.model"],
                    ["train", "run.toml", "--out", "run", "--quiet"]):
        done = subprocess.run([program, *command], cwd=folder, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"harness: {done.stderr}")
    return folder / "run/checkpoints" / (folder / "run/latest").read_text().strip()


@contextlib.contextmanager
def served(program, model):
    """A server of the model on a free port of this machine; its address."""
    server = subprocess.Popen([program, "serve", "--model", model, "--port", "0", "--json", "--dtype", "fp32", "--max-length", "2048"],
                              stdout=subprocess.PIPE, text=True)
    try:
        first = server.stdout.readline()
        if not first:
            sys.exit(f"harness: the server did not start (exit {server.wait()})")
        threading.Thread(target=lambda: [None for _ in server.stdout], daemon=True).start()  # its log of requests
        yield json.loads(first)["at"]
    finally:
        server.terminate()
        server.wait()


def evaluate(python, kind, arguments, tasks, out):
    """The harness's accuracy, and the log-probability of every choice of every example."""
    command = [python, "-m", "lm_eval", "--model", kind, "--model_args", ",".join(f"{key}={value}" for key, value in arguments.items()),
               "--tasks", TASK, "--include_path", tasks, "--output_path", out, "--log_samples", "--batch_size", "1", "--device", "cpu"]
    offline = dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(out / "cache"), TOKENIZERS_PARALLELISM="false")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=offline)
    if done.returncode != 0:
        sys.exit(f"harness: {kind} failed\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"][TASK]
    samples = [json.loads(line) for line in next(out.rglob("samples_*.jsonl")).read_text().splitlines()]
    samples.sort(key=lambda sample: sample["doc_id"])
    return results["acc,none"], [[float(choice[0][0]) for choice in sample["resps"]] for sample in samples]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="model directory, with tokenizer files")
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build/release/switchyard")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    python = environment(SOURCE / "build/harness")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        task = (SOURCE / "scripts/harness/choices.yaml").read_text()
        (folder / "choices.yaml").write_text(re.sub(r"\bCHOICES\b", str(CHOICES), task))
        model = options.model or small_model(options.program.resolve(), folder)
        with served(options.program, model) as address:
            ours = evaluate(python, "local-completions", {
                "model": model, "tokenizer": model, "tokenizer_backend": "huggingface",
                "base_url": f"{address}/v1/completions", "num_concurrent": 4}, folder, folder / "served")
        theirs = evaluate(python, "hf", {"pretrained": model, "backend": "seq2seq", "dtype": "float32",
                                         "add_bos_token": False}, folder, folder / "transformers")
    differences = [abs(a - b) for left, right in zip(ours[1], theirs[1]) for a, b in zip(left, right)]
    report = {"examples": len(ours[1]), "choices": len(differences), "served_accuracy": ours[0], "transformers_accuracy": theirs[0],
              "largest_difference": max(differences)}
    print(json.dumps(report) if options.json else "\n".join(f"{key}: {value}" for key, value in report.items()))
    if len(ours[1]) != len(theirs[1]) or ours[0] != theirs[0] or max(differences) > TOLERANCE:
        sys.exit("harness: the numbers differ")


if __name__ == "__main__":
    main()
