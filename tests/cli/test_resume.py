"""Exact resume: a run that is killed at any instant continues to the very same metrics."""

import os
import random
import signal
import subprocess
import time

from conftest import PROGRAM, metrics, switchyard

STEPS = 120


def start(workshop, out):
    environment = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    return subprocess.Popen(
        [PROGRAM, "train", workshop / "tiny.toml", "--out", out, "--resume", "--set", f"train.steps={STEPS}", "--quiet"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_ten_times_gives_the_same_metrics(workshop, tmp_path):
    done = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "whole", "--set", f"train.steps={STEPS}")
    assert done.returncode == 0, done.stderr
    expected = metrics(tmp_path / "whole")
    assert [line["step"] for line in expected if "loss" in line] == list(range(1, STEPS + 1))

    draw = random.Random(4)
    out = tmp_path / "killed"
    for kill in range(10):
        # Wait until the run has moved on by some steps, then kill it after a random moment: in a step, an evaluation or a save.
        goal = min(STEPS - 12, 10 * kill + draw.randrange(1, 10))
        process = start(workshop, out)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline and not step_reached(out, goal):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        assert process.poll() is None, f"finished before kill {kill}: {process.stderr.read().decode()}"
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(workshop, out)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert metrics(out) == expected


def count_lines(out):
    with open(out / "metrics.jsonl", "rb") as lines:
        return sum(1 for _ in lines)


def step_reached(out, goal):
    """Looks only at whole lines: the writer may be in the middle of one, or just putting an older file aside."""
    try:
        text = (out / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return False
    last = text[: text.rfind(b"\n") + 1].splitlines()[-1:]
    return bool(last) and int(last[0].split(b'"step":')[1].split(b",")[0].split(b"}")[0]) >= goal


def test_ctrl_c_saves_and_resume_continues(workshop, tmp_path):
    whole = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "whole", "--set", f"train.steps={STEPS}")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "stopped"
    process = start(workshop, out)
    deadline = time.time() + 60
    while time.time() < deadline and not ((out / "metrics.jsonl").exists() and count_lines(out) > 23):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    stopped_at = max(line["step"] for line in metrics(out))
    assert (out / "checkpoints" / f"step-{stopped_at:06d}").is_dir(), "Ctrl-C must leave a checkpoint of its last step"
    process = start(workshop, out)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert metrics(out) == metrics(tmp_path / "whole")
