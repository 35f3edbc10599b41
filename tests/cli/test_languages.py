"""Many languages: a folder of files is a mixture of as many parts, each with a held-out loss of its own from one pass."""

import json
import random

import pytest

from conftest import metrics, refused, switchyard

WORDS = {"aa": "zo veel van dit huis", "bb": "kala vesi talo puu", "cc": "rio casa monte sol"}
LINES = {"aa": 900, "bb": 300, "cc": 60}


@pytest.fixture(scope="module")
def languages(tmp_path_factory):
    """Folders train and held_out with a file of JSON Lines for each language, a vocabulary of both and a run file."""
    folder = tmp_path_factory.mktemp("languages")
    draw = random.Random(3)
    for split, share in (("train", 1.0), ("held_out", 0.2)):
        (folder / split).mkdir()
        for name, words in WORDS.items():
            lines = [" ".join(draw.choices(words.split(), k=8)) for _ in range(int(LINES[name] * share))]
            (folder / f"{split}/{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    done = switchyard("vocab", "train", "--text", folder / "train", "--size", 300, "--exponent", 0.3, "--byte-fallback",
                      "--character-coverage", 1, "--out", folder / "spiece.model")
    assert done.returncode == 0, done.stderr
    (folder / "run.toml").write_text("""
[model]
preset = "switch-tiny-4"
[data]
eval_text = ["held_out"]
eval_each_file = true
vocab = "spiece.model"
encoder_length = 32
mixture_rule = "proportional"
mixture_temperature = 3.333
[[data.mixture]]
text = ["train"]
each_file = true
[train]
steps = 20
batch_size = 8
dtype = "fp32"
eval_every = 10
eval_examples = 6
save_every = 10
""")
    return folder


@pytest.fixture(scope="module")
def whole(languages):
    done = switchyard("train", languages / "run.toml", "--out", languages / "runs/whole", "--quiet")
    assert done.returncode == 0, done.stderr
    return languages / "runs/whole"


def test_each_file_is_a_part_with_a_loss_of_its_own(languages, whole):
    lines = metrics(whole)
    seen = [line["part_examples_seen"] for line in lines if "part_examples_seen" in line][-1]
    assert set(seen) == set(WORDS) and sum(seen.values()) == 160
    assert seen["aa"] < 5 * seen["cc"], "15 times the text, but an exponent of 0.3"
    evaluations = [line for line in lines if "eval_loss" in line]
    assert len(evaluations) == 2
    for line in evaluations:
        losses = [line[f"eval_loss_{name}"] for name in WORDS]
        assert min(losses) < line["eval_loss"] < max(losses)


def test_eval_scores_each_file(languages, whole):
    last = [line for line in metrics(whole) if "eval_loss" in line][-1]
    scored = json.loads(switchyard("eval", "--model", whole, "--json").stdout)
    assert scored["loss"] == pytest.approx(last["eval_loss"], abs=1e-5) and scored["tokens"] == last["eval_tokens"]
    assert scored["files"] == pytest.approx({name: last[f"eval_loss_{name}"] for name in WORDS}, abs=1e-5)
    alone = json.loads(switchyard("eval", "--model", whole, "--text", languages / "held_out/bb.jsonl", "--each-file", "--json").stdout)
    assert alone["files"] == {"bb": alone["loss"]}


def test_resumes_exactly(languages, whole):
    train = ["train", languages / "run.toml", "--out", languages / "runs/cut", "--quiet"]
    assert switchyard(*train, "--set", "train.steps=10").returncode == 0
    done = switchyard(*train, "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(languages / "runs/cut") == metrics(whole)


def test_the_report_compares_languages(languages, whole):
    done = switchyard("train", languages / "run.toml", "--out", languages / "runs/dense", "--quiet", "--set", 'model.preset="t5-tiny"')
    assert done.returncode == 0, done.stderr
    done = switchyard("report", whole, languages / "runs/dense", "--out", languages / "report.html", "--json")
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["parts"]
    assert {part["name"] for part in parts} == set(WORDS)
    last = [[line for line in metrics(languages / "runs" / run) if "eval_loss" in line][-1] for run in ("dense", "whole")]
    for part in parts:
        dense, sparse = (line[f"eval_loss_{part['name']}"] for line in last)
        assert (part["dense_loss"], part["sparse_loss"]) == pytest.approx((dense, sparse))
    assert "<h2>By part</h2>" in (languages / "report.html").read_text()


def test_what_does_not_fit_is_named(languages):
    run, out = languages / "run.toml", languages / "refused"
    text = run.read_text()
    (languages / "named.toml").write_text(text.replace("each_file = true\n[train]", 'each_file = true\nname = "all"\n[train]'))
    assert "each_file is for text without a name" in refused("train", languages / "named.toml", "--out", out)
    assert "eval_each_file wants files" in refused("train", run, "--out", out, "--set", "data.eval_text=[]")
    twice = f'data.eval_text=["held_out", "{languages}/train/aa.jsonl"]'
    assert "two held-out files are named aa" in refused("train", run, "--out", out, "--set", twice)
    (languages / "short").mkdir()
    (languages / "short/dd.jsonl").write_text('{"text": "zo"}\n')
    (languages / "short.toml").write_text(text.replace('text = ["train"]', 'text = ["train", "short"]'))
    assert "mixture part dd: the training text has" in refused("train", languages / "short.toml", "--out", out)
