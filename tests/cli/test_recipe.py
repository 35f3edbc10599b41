"""The fine-tuning recipe: a task's metric on the way, the best checkpoint by it, early stopping, frozen weights, fresh slots."""

import json
import shutil

import pytest
from safetensors.numpy import load_file

from conftest import metrics, refused, switchyard

WORDS = ["lamp", "bridge", "apples", "letter", "gate", "coat"]


@pytest.fixture(scope="module")
def tuning(workshop, tmp_path_factory):
    """A pre-trained run, rows of a task, and a run file of the recipe."""
    folder = tmp_path_factory.mktemp("recipe")
    done = switchyard("train", workshop / "tiny.toml", "--out", folder / "pretrained", "--quiet")
    assert done.returncode == 0, done.stderr
    (folder / "data/glue_sst2").mkdir(parents=True)
    rows = [{"sentence": f"{'a fine' if n % 2 else 'a poor'} {WORDS[n % 6]}", "label": n % 2} for n in range(40)]
    for split in ("train", "dev"):
        (folder / f"data/glue_sst2/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tune.toml").write_text(f"""
[model]
init = "{folder / 'pretrained'}"
dropout_rate = 0.1
expert_dropout_rate = 0.4
[data]
task = "glue_sst2"
folder = "data"
eval_tasks = ["glue_sst2"]
vocab = "{folder / 'pretrained'}"
encoder_length = 48
decoder_length = 16
[train]
steps = 400
batch_size = 8
dtype = "fp32"
eval_every = 10
eval_rank = true
save_every = 20
best_metric = "eval_glue_sst2_accuracy"
best_direction = "higher"
early_stopping_patience = 8
[optimizer]
learning_rate = 0.01
schedule = "constant"
""")
    return folder


def tensors(run):
    return load_file(run / "checkpoints" / (run / "latest").read_text().strip() / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tuning):
    done = switchyard("train", tuning / "tune.toml", "--out", tuning / "whole", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"], "a run that stops early is finished"
    return tuning / "whole"


def evaluations(run):
    return [(line["step"], line["eval_glue_sst2_accuracy"]) for line in metrics(run) if "eval_glue_sst2_accuracy" in line]


def test_stops_after_evaluations_without_a_gain_and_keeps_the_best(tuning, whole):
    found = evaluations(whole)
    scores = [score for _, score in found]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 8 and found[-1][0] < 400, found
    assert max(scores) > 90, found
    done = switchyard("eval", "--model", f"{whole}@best", "--task", "glue_sst2", "--data", tuning / "data", "--split", "dev",
                      "--encoder-length", 48, "--rank", "--json")
    assert json.loads(done.stdout)["metrics"]["accuracy"] == pytest.approx(max(scores))


def test_a_stopped_run_stays_stopped_and_a_cut_one_stops_at_the_same_step(tuning, whole):
    before = metrics(whole)
    done = switchyard("train", tuning / "tune.toml", "--out", whole, "--resume", "--quiet")
    assert done.returncode == 0, done.stderr
    assert metrics(whole) == before
    switchyard("train", tuning / "tune.toml", "--out", tuning / "cut", "--quiet", "--set", "train.steps=20")
    done = switchyard("train", tuning / "tune.toml", "--out", tuning / "cut", "--quiet", "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(tuning / "cut") == before


@pytest.mark.parametrize("frozen", ["experts", "non_experts"])
def test_frozen_weights_stay_and_have_no_slots(tuning, frozen):
    out = tuning / f"frozen_{frozen}"
    done = switchyard("train", tuning / "tune.toml", "--out", out, "--quiet", "--set", f'train.frozen=["{frozen}"]', "--set", "train.steps=3")
    assert done.returncode == 0, done.stderr
    before, after = tensors(tuning / "pretrained"), tensors(out)
    for name, tensor in after.items():
        is_expert, is_router = ".experts." in name, ".router." in name
        stays = is_expert if frozen == "experts" else not is_expert and not is_router
        assert (tensor == before[name]).all() == stays, name
    checkpoint = out / "checkpoints" / (out / "latest").read_text().strip()
    slots = [name for file in checkpoint.glob("training/*.safetensors") for name in load_file(file)]
    assert slots and all((".experts." in name) == (frozen == "non_experts") or ".router." in name for name in slots), slots


def test_init_takes_weights_and_no_slots(tuning):
    checkpoint = tuning / "pretrained/checkpoints" / (tuning / "pretrained/latest").read_text().strip()
    shutil.copytree(checkpoint, tuning / "bare", ignore=shutil.ignore_patterns("training"))
    runs = []
    for init in ("pretrained", "bare"):
        done = switchyard("train", tuning / "tune.toml", "--out", tuning / f"from_{init}", "--quiet", "--set", f"model.init={tuning / init}",
                          "--set", "train.steps=4")
        assert done.returncode == 0, done.stderr
        runs.append(metrics(tuning / f"from_{init}"))
    assert runs[0] == runs[1]


def test_what_does_not_fit_is_named(tuning):
    run, out = tuning / "tune.toml", tuning / "refused"
    # What evaluations give is known after the first one.
    assert "eval_glue_sst2_accuracy" in refused("train", run, "--out", tuning / "unknown_metric", "--set", "train.best_metric=eval_glue_sst2_f1")
    assert 'did you mean "experts"' in refused("train", run, "--out", out, "--set", 'train.frozen=["expert"]')
    assert "nothing is left to train" in refused("train", run, "--out", out, "--set", 'train.frozen=["experts", "routers", "non_experts"]')
