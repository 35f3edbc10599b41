"""Training on a task: from a model that was pre-trained here, on a folder of rows."""

import json

import pytest

from conftest import metrics, refused, switchyard

WORDS = ["lamp", "bridge", "apples", "letter", "gate", "coat"]


@pytest.fixture(scope="module")
def tuned(workshop, tmp_path_factory):
    """A pre-trained run, task rows beside it, and a run file that goes on from the one with the other."""
    folder = tmp_path_factory.mktemp("tuning")
    done = switchyard("train", workshop / "tiny.toml", "--out", folder / "pretrained", "--quiet")
    assert done.returncode == 0, done.stderr
    (folder / "data/glue_sst2").mkdir(parents=True)
    rows = [{"sentence": f"{'a fine' if n % 2 else 'a poor'} {WORDS[n % 6]}", "label": n % 2} for n in range(40)]
    lines = [json.dumps(row) for row in rows] + ['{"sentence": "no label"}']
    for split in ("train", "dev"):
        (folder / f"data/glue_sst2/{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tune.toml").write_text(f"""
[model]
init = "{folder / 'pretrained'}"
[data]
task = "glue_sst2"
folder = "data"
vocab = "{folder / 'pretrained'}"
encoder_length = 48
decoder_length = 16
[train]
steps = 60
batch_size = 8
dtype = "fp32"
save_every = 20
[optimizer]
learning_rate = 0.01
schedule = "constant"
""")
    return folder


def test_learns_the_task_and_resumes_exactly(tuned):
    done = switchyard("train", tuned / "tune.toml", "--out", tuned / "whole", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "1 rows skipped" in done.stderr and "train.jsonl:41" in done.stderr
    whole = metrics(tuned / "whole")
    assert whole[-1]["cross_entropy"] < 0.3 * whole[0]["cross_entropy"]
    assert whole[-1]["epochs"] == pytest.approx(60 * 8 / 40)
    switchyard("train", tuned / "tune.toml", "--out", tuned / "cut", "--quiet", "--set", "train.steps=20")
    done = switchyard("train", tuned / "tune.toml", "--out", tuned / "cut", "--quiet", "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(tuned / "cut") == whole


def test_the_tuned_model_is_scored_on_the_task(tuned):
    if not (tuned / "whole").exists():
        test_learns_the_task_and_resumes_exactly(tuned)
    done = switchyard("eval", "--model", tuned / "whole", "--task", "glue_sst2", "--data", tuned / "data", "--split", "dev",
                      "--bad-rows", "skip", "--encoder-length", 48, "--rank", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["accuracy"] == 100.0


def test_what_does_not_fit_is_named(tuned):
    run, out = tuned / "tune.toml", tuned / "refused"
    assert "glue_sst3" in refused("train", run, "--out", out, "--set", "data.task=glue_sst3")
    assert "absent: no such folder" in refused("train", run, "--out", out, "--set", "data.folder=absent")
    assert "data.folder" in refused("train", run, "--out", out, "--set", 'data.folder=""')
    assert "keep one" in refused("train", run, "--out", out, "--set", 'data.text=["train.txt"]')
    assert "decoder_length" in refused("train", run, "--out", out, "--set", "data.decoder_length=2")
