"""What the command tests share: the built program, a small deterministic text, a vocabulary made of it, a run file."""

import json
import os
import pathlib
import random
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("SWITCHYARD_PROGRAM", str(SOURCE / "build/release/switchyard"))


def switchyard(*arguments, **options):
    """Runs the program; returns the finished process with text output. Ranks and threads stay off: two threads."""
    environment = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    options = {"capture_output": True, "text": True, "timeout": 240, "env": environment, **options}
    return subprocess.run([PROGRAM, *map(str, arguments)], **options)


def refused(*arguments, **options):
    """Runs the program, which must refuse its input: exit code 2, one message, no crash. Returns the message."""
    done = switchyard(*arguments, **options)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "internal error" not in done.stderr
    return done.stderr


def make_text(sentences, seed):
    """Sentences of a small grammar: enough structure to learn, nothing taken from anywhere."""
    draw = random.Random(seed)
    names = ["Ada", "Bruno", "Carla", "Dmitri", "Esther", "Farid"]
    things = ["a red lamp", "the old bridge", "seven apples", "a long letter", "the north gate", "her green coat"]
    verbs = ["found", "painted", "sold", "carried", "forgot", "described"]
    places = ["in the harbour", "behind the mill", "at the market", "near the station"]
    syllables = ["ba", "ro", "mi", "ten", "sul", "ka", "ver", "do", "lin", "pa", "gor", "fe"]
    coined = ["".join(draw.choice(syllables) for _ in range(3)) for _ in range(300)]
    lines = []
    for number in range(sentences):
        line = f"{draw.choice(names)} {draw.choice(verbs)} {draw.choice(things)} {draw.choice(places)} of {draw.choice(coined)}."
        lines.append(line + ("\n" if number % 6 == 5 else ""))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder with train.txt, held.txt, spiece.model and tiny.toml."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "train.txt").write_text(make_text(4000, 1))
    (folder / "held.txt").write_text(make_text(400, 2))
    done = switchyard("vocab", "train", "--text", folder / "train.txt", "--size", 200, "--out", folder / "spiece.model")
    assert done.returncode == 0, done.stderr
    (folder / "tiny.toml").write_text("""
[model]
preset = "switch-tiny-4"

[data]
text = ["train.txt"]
eval_text = ["held.txt"]
vocab = "spiece.model"
encoder_length = 48

[train]
steps = 12
batch_size = 4
dtype = "fp32"
eval_every = 5
eval_examples = 8
save_every = 5
""")
    return folder


@pytest.fixture(scope="session")
def small_run(workshop, tmp_path_factory):
    """A run of 60 steps: a model whose experts differ and, in evaluation, have room for every token."""
    out = tmp_path_factory.mktemp("small") / "run"
    done = switchyard("train", workshop / "tiny.toml", "--out", out, "--quiet", "--set", "train.steps=60", "--set", "routing.eval_capacity_factor=4")
    assert done.returncode == 0, done.stderr
    return out


def metrics(run_folder):
    """Lines of metrics.jsonl without the fields that tell time and memory."""
    timing = {"tokens_per_second", "step_seconds", "seconds", "eval_seconds", "model_flops_utilization", "peak_memory_bytes"}
    with open(run_folder / "metrics.jsonl") as lines:
        return [{key: value for key, value in json.loads(line).items() if key not in timing} for line in lines]
