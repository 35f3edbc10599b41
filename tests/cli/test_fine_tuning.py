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


def test_resumes_where_the_pretrained_model_has_moved(workshop, tmp_path):
    done = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "pretrained", "--quiet", "--set", "train.steps=1")
    assert done.returncode == 0, done.stderr
    run = (workshop / "tiny.toml").read_text().replace('preset = "switch-tiny-4"', f'init = "{tmp_path}/pretrained"')
    (workshop / "more.toml").write_text(run + "[routing]\neval_capacity_factor = 1.5\n")
    train = ["train", workshop / "more.toml", "--out", tmp_path / "more", "--quiet"]
    done = switchyard(*train, "--set", "train.steps=2")
    assert done.returncode == 0, done.stderr
    (tmp_path / "pretrained").rename(tmp_path / "elsewhere")
    done = switchyard(*train, "--set", "train.steps=3", "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "more")[-1]["step"] == 3
    assert "pretrained does not exist" in refused("train", workshop / "more.toml", "--out", tmp_path / "another")


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


def mixture_run(tuned, name, keys):
    """A run file of text and a task together."""
    run = tuned / f"{name}.toml"
    run.write_text((tuned / "tune.toml").read_text().replace('task = "glue_sst2"', "").replace("encoder_length", keys + "encoder_length", 1)
                   + f"""
[[data.mixture]]
text = ["{tuned / 'text.txt'}"]
rate = 3
[[data.mixture]]
task = "glue_sst2"
rate = 1
""")
    return run


def test_a_mixture_of_text_and_a_task_resumes_exactly(tuned, workshop):
    (tuned / "text.txt").write_bytes((workshop / "train.txt").read_bytes())
    run = mixture_run(tuned, "mixture", "")
    done = switchyard("train", run, "--out", tuned / "mixed", "--quiet")
    assert done.returncode == 0, done.stderr
    whole = metrics(tuned / "mixed")
    seen = whole[-1]["part_examples_seen"]
    assert sum(seen.values()) == 60 * 8 and 2.2 < seen["text"] / seen["glue_sst2"] < 4.1, seen
    assert set(whole[-1]["part_loss"]) <= {"text", "glue_sst2"}
    losses = [line["part_loss"]["glue_sst2"] for line in whole if "glue_sst2" in line["part_loss"]]
    assert losses[-1] < 0.5 * losses[0], "the task is learned in a mixture, too"
    switchyard("train", run, "--out", tuned / "mixed_cut", "--quiet", "--set", "train.steps=20")
    done = switchyard("train", run, "--out", tuned / "mixed_cut", "--quiet", "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(tuned / "mixed_cut") == whole
    done = switchyard("train", tuned / "mixed/run.toml", "--out", tuned / "mixed_again", "--quiet", "--set", "train.steps=3")
    assert done.returncode == 0, done.stderr
    assert metrics(tuned / "mixed_again") == whole[:3], "run.toml is read back to the same run"


@pytest.mark.parametrize("kind", ["task", "mixture"])
def test_packed_examples_learn_and_resume_exactly(tuned, workshop, kind):
    (tuned / "text.txt").write_bytes((workshop / "train.txt").read_bytes())
    run = tuned / "tune.toml" if kind == "task" else mixture_run(tuned, "packed", "")
    out, pack = tuned / f"packed_{kind}", ["--quiet", "--set", "data.pack=true", "--set", "data.decoder_length=48", "--set", "train.steps=40", "--set", "train.batch_size=4"]
    done = switchyard("train", run, "--out", out, *pack)
    assert done.returncode == 0, done.stderr
    whole = metrics(out)
    plain = 40 * 4
    if kind == "task":
        assert whole[-1]["epochs"] * 40 > 1.5 * plain, "rows hold several examples"
        assert whole[-1]["cross_entropy"] < 0.3 * whole[0]["cross_entropy"]
    else:
        seen = whole[-1]["part_examples_seen"]
        assert sum(seen.values()) > plain and 1.8 < seen["text"] / seen["glue_sst2"] < 5, seen
        assert all(line["filled"] > 0.5 for line in whole)
    cut = tuned / f"packed_{kind}_cut"
    switchyard("train", run, "--out", cut, *pack, "--set", "train.steps=15")
    done = switchyard("train", run, "--out", cut, *pack, "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(cut) == whole
    assert "data.pack" in refused("train", run, "--out", cut, "--quiet", "--set", "train.steps=50", "--resume")


def test_packing_is_for_short_examples(workshop):
    assert "text fills its rows already" in refused("train", workshop / "tiny.toml", "--out", workshop / "packed", "--set", "data.pack=true")


def test_texts_of_a_task_that_are_too_long(tuned):
    train = ["train", tuned / "tune.toml", "--set", "train.steps=1"]
    message = refused(*train, "--out", tuned / "long", "--set", "data.encoder_length=8", "--set", "data.long_inputs=refuse")
    assert "train.jsonl:1: an input of more than encoder_length - 1 = 7 tokens" in message
    done = switchyard(*train, "--out", tuned / "long_cut", "--set", "data.encoder_length=8")
    assert done.returncode == 0 and "inputs cut to 8 tokens, the first is" in done.stderr, done.stderr
    assert "no example is left" in refused(*train, "--out", tuned / "long", "--set", "data.decoder_length=2", "--set", "data.long_targets=skip")


def test_targets_that_no_output_reaches_are_named(tuned, workshop):
    settings = ["train.steps=1", "data.encoder_length=8", "data.decoder_length=6", f'data.folder="{tuned / "data"}"',
                'data.eval_tasks=["glue_sst2"]', "data.eval_split=dev", "train.eval_task_examples=2"]
    done = switchyard("train", workshop / "tiny.toml", "--out", tuned / "short", *(word for setting in settings for word in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    assert "of 2 targets are longer than outputs, 6 tokens, the first is" in done.stderr, done.stderr


def test_mixture_rules(tuned, workshop):
    (tuned / "text.txt").write_bytes((workshop / "train.txt").read_bytes())
    run = mixture_run(tuned, "rules", "")
    assert "keep one of them" in refused("train", run, "--out", tuned / "refused", "--set", "data.mixture_rule=equal")
    assert "keep one" in refused("train", run, "--out", tuned / "refused", "--set", "data.task=glue_sst2")
    run.write_text(run.read_text().replace("rate = 3", "").replace("rate = 1", ""))
    assert "entry 1: rate = 0" in refused("train", run, "--out", tuned / "refused")
    message = refused("train", run, "--out", tuned / "refused", "--set", "data.mixture_rule=equall")
    assert "rates, proportional, equal" in message and "equal" in message
    shares = {}
    for name, settings in {"equal": ["data.mixture_rule=equal"],
                           "proportional": ["data.mixture_rule=proportional"],
                           "limited": ["data.mixture_rule=proportional", "data.mixture_maximum=40"]}.items():
        arguments = [part for setting in settings + ["train.steps=25"] for part in ("--set", setting)]
        done = switchyard("train", run, "--out", tuned / name, "--quiet", *arguments)
        assert done.returncode == 0, done.stderr
        seen = metrics(tuned / name)[-1]["part_examples_seen"]
        shares[name] = seen["text"] / (seen["text"] + seen.get("glue_sst2", 0))
    assert 0.4 < shares["equal"] < 0.6 and 0.4 < shares["limited"] < 0.6, shares
    assert shares["proportional"] > 0.9, shares
    run.write_text(run.read_text().replace("[[data.mixture]]", "[[data.mixture]]\nratio = 2", 1))
    assert "did you mean \"rate\"" in refused("train", run, "--out", tuned / "refused")
