"""A run's folder: who may write to it, what resuming it may change, and which checkpoints it keeps."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from conftest import PROGRAM, metrics, refused, switchyard


def start(*arguments):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    return subprocess.Popen([PROGRAM, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(condition, process):
    deadline = time.time() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.time() < deadline
        time.sleep(0.01)


def train(workshop, out, *settings, flags=()):
    words = [word for setting in settings for word in ("--set", setting)]
    done = switchyard("train", workshop / "tiny.toml", "--out", out, "--quiet", *words, *flags)
    assert done.returncode == 0, done.stderr
    return done


def checkpoints(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_input_is_made_faster_than_a_step_reads_it(workshop):
    done = switchyard("bench", "input", "--text", workshop / "train.txt", "--vocab", workshop / "spiece.model", "--model", "switch-tiny-4",
                      "--encoder-length", 64, "--batch", 2, "--steps", 5, "--repeats", 1, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    rates = json.loads(done.stdout)
    parts = [rates[f"{part}_tokens_per_second"] for part in ("tokenise", "corrupt", "pack")]
    assert rates["input_tokens_per_second"] == pytest.approx(1 / sum(1 / rate for rate in parts))
    assert rates["input_over_step"] == pytest.approx(rates["input_tokens_per_second"] / rates["step_tokens_per_second"])
    assert 0.5 < rates["packed_rows_filled"] <= 1


def test_one_process_a_folder(workshop, tmp_path):
    out = tmp_path / "run"
    first = start("train", workshop / "tiny.toml", "--out", out, "--quiet", "--set", "train.steps=100000")
    try:
        wait_for(lambda: (out / "latest").exists(), first)
        for flags in ([], ["--resume"]):
            message = refused("train", workshop / "tiny.toml", "--out", out, *flags)
            assert str(out) in message and f"process {first.pid} on " in message
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert first.returncode == 130
    steps = [line["step"] for line in metrics(out) if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert not (out / ".lock").exists()


def test_what_fails_before_it_starts_leaves_no_folder(workshop, tmp_path):
    refused("train", workshop / "tiny.toml", "--out", tmp_path / "run", "--set", 'data.text=["absent.txt"]')
    assert not (tmp_path / "run").exists()


def test_resuming_without_a_checkpoint_keeps_the_metrics(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out)
    before = (out / "metrics.jsonl").read_bytes()
    for checkpoint in (out / "checkpoints").iterdir():
        (checkpoint / "config.json").unlink()
    done = train(workshop, out, flags=["--resume"])
    assert "metrics.1.jsonl" in done.stderr
    assert (out / "metrics.1.jsonl").read_bytes() == before
    assert [line["step"] for line in metrics(out) if "loss" in line] == list(range(1, 13))


def test_resuming_with_other_settings_is_refused_key_by_key(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out)
    other_text = tmp_path / "other.txt"
    other_text.write_text((workshop / "held.txt").read_text() * 3)
    for setting, words in [
        ("train.seed=7", ["train.seed: 0 -> 7"]),
        ("train.batch_size=8", ["train.batch_size: 4 -> 8"]),
        ("optimizer.learning_rate=0.5", ["optimizer.learning_rate: 0.01 -> 0.5"]),
        ("routing.train_capacity_factor=3.0", ["model.train_capacity_factor: 1.25 -> 3.0"]),
        (f'data.text=["{other_text}"]', ["text: examples an epoch"]),
        ("data.encoder_length=32", ["data.encoder_length: 48 -> 32"]),
    ]:
        message = refused("train", workshop / "tiny.toml", "--out", out, "--resume", "--set", setting)
        assert all(word in message for word in words), message
        assert "--allow-changes" in message
    before = metrics(out)
    done = train(workshop, out, "train.seed=7", "train.steps=14", flags=["--resume", "--allow-changes"])
    assert "train.seed: 0 -> 7" in done.stderr
    assert metrics(out)[: len(before)] == before and metrics(out)[-1]["step"] == 14
    message = refused("train", workshop / "tiny.toml", "--out", out, "--resume", "--allow-changes", "--set", "model.d_ff=64")
    assert "model.d_ff" in message and "its tensors are not those" in message


def test_how_long_and_how_often_may_change(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out, "routing.group_size=48")
    free = ["routing.group_size=48", "train.steps=16", "train.eval_every=4", "train.save_every=3", "train.log_every=2", "train.keep_last=1", "train.micro_batch_size=2"]  # fmt: skip
    assert train(workshop, out, *free, flags=["--resume"]).stderr == ""
    assert metrics(out)[-1]["step"] == 16


def evaluations(out):
    return {line["step"]: line["eval_loss"] for line in metrics(out) if "eval_loss" in line}


def test_the_best_evaluation_has_a_checkpoint(workshop, tmp_path):
    out = tmp_path / "run"
    # A rate that breaks the model after some steps: the best evaluation is no multiple of save_every.
    train(workshop, out, "train.steps=40", "train.eval_every=3", "train.save_every=20", "train.keep_last=1",
          "optimizer.learning_rate=0.3", "optimizer.schedule=constant")  # fmt: skip
    found = evaluations(out)
    best = min(found, key=found.get)
    assert best % 20 != 0, "the test needs a best step that is not saved anyway"
    assert f"step-{best:06d}" in checkpoints(out)
    assert (out / "best").read_text() == f"step-{best:06d}\n"
    recorded = json.loads((out / "checkpoints" / f"step-{best:06d}" / "training" / "evaluation.json").read_text())
    assert recorded["eval_loss"] == found[best]


def test_the_best_by_another_number(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out, "train.eval_every=2", "train.best_metric=eval_accuracy", "train.best_direction=higher")
    scores = {line["step"]: line["eval_accuracy"] for line in metrics(out) if "eval_accuracy" in line}
    assert (out / "best").read_text() == f"step-{max(scores, key=scores.get):06d}\n"
    assert "best_direction" in refused("train", workshop / "tiny.toml", "--out", tmp_path / "x", "--set", "train.best_direction=up")


def test_a_first_step_that_is_not_finite_leaves_the_checkpoint_alone(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out)
    newest = out / "checkpoints" / "step-000012"
    before = {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    message = refused("train", workshop / "tiny.toml", "--out", out, "--resume", "--allow-changes",
                      "--set", "train.steps=14", "--set", "train.z_loss=1e39")  # fmt: skip
    assert "not finite" in message and "step 13" in message and str(newest) in message
    assert {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()} == before


def test_evaluation_keeps_to_the_micro_batch(workshop, tmp_path):
    common = ["train.eval_examples=6", "routing.group_size=48"]
    train(workshop, tmp_path / "whole", *common)
    train(workshop, tmp_path / "cut", *common, "train.micro_batch_size=1")
    whole, cut = evaluations(tmp_path / "whole"), evaluations(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(abs(whole[step] - cut[step]) < 1e-4 for step in whole)


def test_metrics_count_tokens_and_epochs(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out, "train.steps=6")
    train(workshop, out, "train.steps=8", flags=["--resume"])
    with open(out / "metrics.jsonl") as lines:
        steps = [line for line in map(json.loads, lines) if "loss" in line]
    per_step = steps[0]["tokens_seen"]
    assert per_step > 4 * 48 and per_step % 4 == 0
    assert [line["tokens_seen"] for line in steps] == [per_step * step for step in range(1, 9)]
    for line in steps:
        assert abs(line["epochs"] - line["step"] * steps[0]["epochs"]) < 1e-12 and 0 < line["epochs"] < 1
        assert 0 < line["model_flops_utilization"] < 1


def test_a_run_says_what_it_is_and_what_came_of_it(workshop, tmp_path):
    out = tmp_path / "run"
    done = switchyard("train", workshop / "tiny.toml", "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("model       switch-tiny-4, ") and "parameters, 4 experts" in lines[0]
    assert lines[1].startswith("data        ") and "tokens an epoch" in lines[1]
    assert lines[2].startswith("compute     fp32, 2 threads, ")
    assert lines[3] == f"folder      {out}, steps 0 to 12"
    assert any(line.startswith("train  1/12 steps") for line in lines)
    assert lines[-3].startswith("trained     12 steps in ")
    assert lines[-2].startswith("eval_loss   ") and "best" in lines[-2]
    assert lines[-1] == f"checkpoint  {out}/checkpoints/step-000012"


@pytest.mark.parametrize("settings", [[], ["train.dtype=bf16", "train.micro_batch_size=2", "routing.group_size=48", "data.noise_density=0.3"]])
def test_eval_of_a_run_repeats_its_loss(workshop, tmp_path, settings):
    out = tmp_path / "run"
    train(workshop, out, *settings)
    expected = evaluations(out)
    for model, step in [(out, 12), (out / "checkpoints" / "step-000005", 5)]:
        done = switchyard("eval", "--model", model, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["loss"] == expected[step]
    assert "--text" in refused("eval", "--model", copied(out / "checkpoints" / "step-000005", tmp_path / "alone"))


def copied(source, target):
    shutil.copytree(source, target)
    return target


def test_dtype_auto_is_settled_before_it_is_kept(workshop, tmp_path):
    out = tmp_path / "run"
    train(workshop, out, "train.dtype=auto", "train.steps=1")
    kept = next(line for line in (out / "run.toml").read_text().splitlines() if line.startswith("dtype"))
    assert kept in ('dtype = "bf16"', 'dtype = "fp32"')


def test_compare_resumes(workshop, tmp_path):
    (workshop / "other.toml").write_text((workshop / "tiny.toml").read_text().replace("switch-tiny-4", "t5-tiny"))
    runs = [workshop / "tiny.toml", workshop / "other.toml"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for out, steps, flags in [(whole, 14, []), (resumed, 7, []), (resumed, 14, ["--resume"])]:
        done = switchyard("compare", *runs, "--out", out, "--set", f"train.steps={steps}", "--json", *flags)
        assert done.returncode == 0, done.stderr
    for name in ("tiny", "other"):
        found = [line for line in metrics(resumed / name) if line["step"] != 7 or "loss" in line]
        assert found == metrics(whole / name)
    summary = json.loads((resumed / "comparison.json").read_text())
    assert summary["equal_step"] == 14
    for run in summary["runs"]:
        assert run["steps"] == 14
        points = [point["step"] for point in run["curve"]]
        assert points == [0, 5, 7, 10, 14]
        times = [point["seconds"] for point in run["curve"]]
        assert times == sorted(times) and times[0] == 0 and run["seconds"] >= times[-1]
    assert "already holds a run" in refused("compare", *runs, "--out", resumed)
