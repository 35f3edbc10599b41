"""`switchyard eval --task` as users meet it: given outputs, a benchmark, a task of one's own, a model's outputs."""

import json
import os
import pathlib
import random
import subprocess

import pytest

PROGRAM = os.environ["SWITCHYARD_PROGRAM"]


def evaluate(*arguments, code=0):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    run = subprocess.run(
        [PROGRAM, "eval", *map(str, arguments)], capture_output=True, text=True, timeout=240, env=environment
    )
    assert run.returncode == code, (run.returncode, run.stderr)
    return run


def scored(*arguments):
    return json.loads(evaluate(*arguments, "--json").stdout)


def write_lines(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def outputs(path: pathlib.Path, texts: list[str]) -> pathlib.Path:
    return write_lines(path, [{"prediction": text, "score": -1.5} for text in texts])


@pytest.fixture
def data(tmp_path):
    sst2 = [{"sentence": f"sentence {n}", "label": n % 2} for n in range(4)]
    write_lines(tmp_path / "glue_sst2/dev.jsonl", sst2)
    stsb = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (5.0, 1.0, 3.0)]
    write_lines(tmp_path / "glue_stsb/dev.jsonl", stsb)
    pair = {"hypothesis": "h", "premise": "p", "label": 0}
    write_lines(tmp_path / "glue_mnli/dev_matched.jsonl", [pair, pair])
    write_lines(tmp_path / "glue_mnli/dev_mismatched.jsonl", [pair])
    return tmp_path


def test_given_outputs(data):
    given = outputs(data / "out.jsonl", ["negative", "positive", "positive", "great"])
    result = scored("--task", "glue_sst2", "--data", data, "--from-predictions", given)
    assert result == {"task": "glue_sst2", "split": "validation", "examples": 4, "metrics": {"accuracy": 50.0}}
    # A task's own folder will do, and a table is printed without --json.
    table = evaluate("--task", "glue_sst2", "--data", data / "glue_sst2", "--split", "dev", "--from-predictions", given)
    assert table.stdout.split() == ["glue_sst2", "dev", "4", "accuracy", "50.00"]


def test_what_is_not_defined_is_null(data):
    given = outputs(data / "out.jsonl", ["", "", ""])
    metrics = scored("--task", "glue_stsb", "--data", data, "--from-predictions", given)["metrics"]
    assert metrics == {"pearson_corrcoef": None, "spearman_corrcoef": None}


def test_benchmark_with_average(data):
    outputs(data / "outputs/glue_sst2.jsonl", ["negative", "positive", "positive", "great"])  # 50
    outputs(data / "outputs/glue_stsb.jsonl", ["5.0", "1.0", "3.0"])  # 100, 100
    outputs(data / "outputs/glue_mnli.validation_matched.jsonl", ["entailment", "neutral"])  # 50
    outputs(data / "outputs/glue_mnli.validation_mismatched.jsonl", ["entailment"])  # 100
    arguments = ["--task", "glue", "--data", data, "--from-predictions", data / "outputs"]
    result = scored(*arguments)
    assert result["average"] == pytest.approx((50 + 100 + 75) / 3)
    assert [row["task"] for row in result["tasks"]] == ["glue_sst2", "glue_stsb", "glue_mnli", "glue_mnli"]
    assert result["missing"] == ["glue_cola", "glue_mrpc", "glue_qqp", "glue_qnli", "glue_rte"]
    table = evaluate(*arguments).stdout
    assert "average of glue without glue_cola, glue_mrpc, glue_qqp, glue_qnli, glue_rte: 75.00" in table
    assert "none of its tasks" in evaluate("--task", "superglue", "--data", data, "--from-predictions", data, code=2).stderr


def test_a_task_of_ones_own(tmp_path):
    (tmp_path / "reviews.toml").write_text(
        '[task]\ninputs = "review: {text}"\nlabels = ["bad", "good"]\nmetrics = ["accuracy", "f1"]\n'
        '[splits]\nvalidation = "held_out.csv"\n'
    )
    (tmp_path / "held_out.csv").write_text('text,label\n"fine, really",good\ndull,0\n,1\n')
    given = outputs(tmp_path / "out.jsonl", ["good", "good"])
    arguments = ["--task", tmp_path / "reviews.toml", "--data", tmp_path, "--from-predictions", given]
    refusal = evaluate(*arguments, code=2).stderr
    assert "1 of 3 rows are bad" in refusal and 'held_out.csv:4: field "text" is empty' in refusal
    result = scored(*arguments, "--bad-rows", "skip")
    assert result["metrics"] == {"accuracy": 50.0, "f1": pytest.approx(200 / 3)}
    assert result["bad_rows"] == 1


def test_wrong_usage_is_told(data):
    given = outputs(data / "out.jsonl", ["negative"])
    task = ["--task", "glue_sst2", "--data", data]
    assert "1 predictions for 4 examples" in evaluate(*task, "--from-predictions", given, code=2).stderr
    assert 'did you mean "glue_sst2"?' in evaluate("--task", "glue_sst", "--from-predictions", given, code=2).stderr
    assert "there are dev" in evaluate(*task, "--split", "test", "--from-predictions", given, code=2).stderr
    assert "--task needs --model" in evaluate(*task, code=2).stderr
    assert "eval needs --model" in evaluate(code=2).stderr
    assert "two evaluations" in evaluate(*task, "--text", given, "--from-predictions", given, code=2).stderr
    assert "leave --model out" in evaluate(*task, "--model", data, "--from-predictions", given, code=2).stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of a few steps on a small grammar: a model, if not a good one."""
    folder = tmp_path_factory.mktemp("model")
    draw = random.Random(1)
    words = "sentence number of the old red bridge lamp negative positive a b c d".split()
    syllables = "ba ro mi ten sul ka ver do lin pa gor fe".split()
    words += ["".join(draw.choices(syllables, k=3)) for _ in range(300)]
    text = "\n".join(" ".join(draw.choices(words, k=9)) + "." for _ in range(3000))
    (folder / "train.txt").write_text(text)
    (folder / "run.toml").write_text(
        f'[model]\npreset = "switch-tiny-4"\n[data]\ntext = ["{folder}/train.txt"]\neval_text = ["{folder}/train.txt"]\n'
        f'vocab = "{folder}/spiece.model"\nencoder_length = 64\n'
        '[train]\nsteps = 4\nbatch_size = 4\neval_every = 0\nsave_every = 4\n'
    )
    for command in (
        ["vocab", "train", "--text", folder / "train.txt", "--size", "100", "--out", folder / "spiece.model"],
        ["train", folder / "run.toml", "--out", folder / "run"],
    ):
        run = subprocess.run([PROGRAM, *map(str, command)], capture_output=True, text=True, timeout=240)
        assert run.returncode == 0, run.stderr
    return folder / "run"


def test_a_models_outputs(data, model):
    task = ["--task", "glue_sst2", "--data", data]
    common = ["--model", model, "--max-tokens", "8", "--dtype", "fp32", "--threads", "1"]
    result = scored(*task, *common, "--predictions", data / "written.jsonl")
    lines = [json.loads(line) for line in (data / "written.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["negative", "positive", "negative", "positive"]
    # Scoring what was written gives the same numbers.
    assert scored(*task, "--from-predictions", data / "written.jsonl")["metrics"] == result["metrics"]
    # Ranking always names one of the labels; cut inputs are counted.
    ranked = scored(*task, *common, "--rank", "--encoder-length", "4", "--predictions", data / "ranked.jsonl")
    chosen = {json.loads(line)["prediction"] for line in (data / "ranked.jsonl").read_text().splitlines()}
    assert chosen <= {"negative", "positive"}
    assert ranked["truncated_inputs"] == 4
    assert "ranking chooses among labels" in evaluate("--task", "glue_stsb", "--data", data, *common, "--rank", code=2).stderr


def test_what_is_too_long_is_named(data, model):
    rows = [{"sentence": "a b", "label": 1}, {"sentence": "the old red bridge " * 8, "label": 0}]
    write_lines(data / "glue_sst2/dev.jsonl", rows)
    task = ["--task", "glue_sst2", "--data", data, "--model", model, "--dtype", "fp32", "--threads", "1"]
    short = [*task, "--encoder-length", "40", "--max-tokens", "2"]
    run = evaluate(*short, "--json")
    assert "1 inputs are cut at 40 tokens (--encoder-length); the first is " in run.stderr
    assert "dev.jsonl:2\n" in run.stderr
    assert "1 targets are longer than any output: up to " in run.stderr
    result = json.loads(run.stdout)
    assert (result["examples"], result["truncated_inputs"], result["long_targets"]) == (2, 1, 1)
    run = evaluate(*short, "--long-inputs", "skip", "--json")
    assert "dev.jsonl:2: an input of " in run.stderr
    result = json.loads(run.stdout)
    assert (result["examples"], result["skipped_inputs"]) == (1, 1)
    refusal = evaluate(*short, "--long-inputs", "refuse", code=2).stderr
    assert "1 of 2 inputs are longer than 40 tokens" in refusal and "dev.jsonl:2: an input of " in refusal
    whole = scored(*task, "--encoder-length", "400", "--long-inputs", "refuse")
    assert whole["examples"] == 2 and "long_targets" not in whole
    written = ["--predictions", data / "written.jsonl"]
    assert "could not be scored again" in evaluate(*short, "--long-inputs", "skip", *written, code=2).stderr
