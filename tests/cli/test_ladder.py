"""`switchyard ladder`: rates are swept below and carried up, what is cut short goes on, and the page shows what was found."""

import json
import os
import signal
import subprocess
import time

import pytest

from conftest import PROGRAM, refused, switchyard

LADDER = """
[ladder]
run = "tiny.toml"
baseline = "dense"
seeds = [0, 1]
rates = [0.001, 0.02]

[[ladder.rung]]
name = "short"
settings = ["train.steps=6", "train.eval_every=3", "train.save_every=2"]

[[ladder.rung]]
name = "long"
settings = ["train.steps=12", "train.eval_every=6", "train.save_every=2"]

[[ladder.contender]]
name = "sparse"

[[ladder.contender]]
name = "dense"
settings = ['model.preset="t5-tiny"']

[[ladder.contender]]
name = "dense-longer"
settings = ['model.preset="t5-tiny"']
steps_scale = 1.5
rate_of = "dense"
"""


@pytest.fixture(scope="module")
def ladder(workshop):
    path = workshop / "ladder.toml"
    path.write_text(LADDER)
    return path


def results(out):
    return {path.stem: json.loads(path.read_text()) for path in (out / "results").iterdir()}


def final(run):
    return run["curve"][-1]["eval_loss"]


@pytest.fixture(scope="module")
def climbed(ladder, tmp_path_factory):
    out = tmp_path_factory.mktemp("climbed") / "out"
    done = switchyard("ladder", ladder, "--out", out, "--quiet", "--threads", "1")
    assert done.returncode == 0, done.stderr
    return out


def test_a_rung_takes_the_best_rate_of_the_one_below(climbed):
    found = results(climbed)
    assert len(found) == 3 + 3 + 2 + 2 + 2 + 2
    for contender in ("sparse", "dense"):
        sweep = {run["rate"]: final(run) for run in found.values()
                 if run["rung"] == "short" and run["contender"] == contender and run["seed"] == 0}
        assert len(sweep) == 2
        best = min(sweep, key=sweep.get)
        assert {run["rate"] for run in found.values() if run["rung"] == "long" and run["contender"] == contender} == {best}
        assert {run["rate"] for run in found.values() if run["rung"] == "short" and run["contender"] == contender and run["seed"] == 1} == {best}
    longer = [run for run in found.values() if run["contender"] == "dense-longer"]
    assert {(run["rung"], run["steps"]) for run in longer} == {("short", 9), ("long", 18)}
    assert {run["rate"] for run in longer} <= {0.001, 0.02}
    assert all(run["num_experts"] == (4 if run["contender"] == "sparse" else 0) for run in found.values())


def test_a_run_of_the_ladder_is_the_run_that_train_makes(climbed, workshop, tmp_path):
    rate = next(run["rate"] for run in results(climbed).values() if run["rung"] == "long" and run["contender"] == "sparse")
    settings = ["train.steps=12", "train.eval_every=6", f"optimizer.learning_rate={rate}", "train.seed=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "run", "--quiet", "--threads", "1", *words)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    expected = [{"step": line["step"], "eval_loss": line["eval_loss"]} for line in lines if "eval_loss" in line]
    assert results(climbed)[f"long-sparse-{rate:g}-1"]["curve"] == expected


def test_what_is_killed_goes_on_to_the_same_results(climbed, ladder, tmp_path):
    out = tmp_path / "out"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    kills = 0
    while kills < 6:
        before = len(list((out / "results").glob("*"))) if (out / "results").exists() else 0
        process = subprocess.Popen([PROGRAM, "ladder", str(ladder), "--out", str(out), "--quiet", "--threads", "1"], env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.time() + 60
        while len(list((out / "results").glob("*.json"))) <= before and process.poll() is None and time.time() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    done = switchyard("ladder", ladder, "--out", out, "--quiet", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert results(out) == results(climbed)


def test_the_page_shows_the_ladder(climbed, ladder, tmp_path):
    done = switchyard("ladder", ladder, "--out", climbed, "--step-times", "--rounds", "2", "--steps", "1", "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    times = json.loads(done.stdout)
    assert [(time["rung"], time["contender"]) for time in times][:3] == [("short", "sparse"), ("short", "dense"), ("short", "dense-longer")]
    assert all(0 < time["lowest"] <= time["seconds"] <= time["highest"] for time in times)
    assert not list(climbed.glob("step_times.[0-9]*"))
    page = tmp_path / "page.html"
    done = switchyard("report", climbed, "--out", page)
    assert done.returncode == 0, done.stderr
    html = page.read_text()
    assert "<h2>Ladder</h2>" in html and "dense-longer" in html and "long: loss against time" in html
    losses = [final(run) for run in results(climbed).values() if run["rung"] == "long" and run["contender"] == "dense"]
    assert f"{sum(losses) / 2:.4f} ± " in html


@pytest.mark.parametrize("before, after, message", [
    ('baseline = "dense"', 'baseline = "dens"', 'ladder.baseline = "dens"; expected the name of a contender'),
    ('name = "long"', 'name = "short"', '"short" comes twice'),
    ('rate_of = "dense"', 'rate_of = "denser"', 'dense-longer has rate_of "denser"'),
    ("rates = [0.001, 0.02]", "rates = []", "ladder.rates is missing"),
    ("steps_scale = 1.5", "step_scale = 1.5", "step_scale"),
    ('"t5-tiny"', '"t5-tinny"', "t5-tinny"),
])
def test_mistakes_are_named(ladder, tmp_path, before, after, message):
    path = ladder.parent / "broken.toml"
    path.write_text(LADDER.replace(before, after))
    assert message in refused("ladder", path, "--out", tmp_path / "out")
