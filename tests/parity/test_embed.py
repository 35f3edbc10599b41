"""`switchyard embed` against transformers' encoders on the same weights."""

import json
import subprocess

import pytest
import torch
import transformers
from compare import PROGRAM, check, switchyard
from safetensors.torch import load_file

ENCODERS = {
    "t5": transformers.T5EncoderModel,
    "t5_v1_1": transformers.T5EncoderModel,
    "umt5": transformers.UMT5EncoderModel,
    "switch": transformers.SwitchTransformersEncoderModel,
}
LINES = ["5 17 3 80 1", "9 1", " ".join(str(2 + 7 * n % 90) for n in range(70)) + " 1"]


def rows(lines=LINES):
    return [[int(word) for word in line.split()] for line in lines]


def embed(model, folder, *options, lines=LINES):
    """Writes out.safetensors; what the program printed."""
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    return json.loads(switchyard("embed", "--model", model, "--ids", "--input", folder / "in.txt", "--output", folder / "out.safetensors",
                                 "--dtype", "fp32", "--threads", 1, "--json", *options))  # fmt: skip


def hidden(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("alone", (False, True))
def test_states_are_those_of_transformers(name, alone, model_folder, tmp_path):
    """Of a whole model, and of a folder that holds its encoder alone."""
    folder = model_folder(name)
    model = ENCODERS[name].from_pretrained(folder)
    if alone:
        model.save_pretrained(tmp_path / "encoder")
        folder = tmp_path / "encoder"
    told = embed(folder, tmp_path)
    states = load_file(tmp_path / "out.safetensors")
    assert sorted(states) == ["1", "2", "3"]
    for number, ids in enumerate(rows(), 1):
        check(f"{name} line {number}", states[str(number)], hidden(model, ids), 1e-4)
    assert (told["texts"], told["tokens"], told["d_model"]) == (3, sum(map(len, rows())), 32)


def test_mean_and_cut(model_folder, tmp_path):
    model = ENCODERS["t5"].from_pretrained(model_folder("t5"))
    told = embed(model_folder("t5"), tmp_path, "--pool", "mean", "--max-length", 20)
    pooled = load_file(tmp_path / "out.safetensors")
    assert list(pooled) == ["embeddings"] and told["cut"] == 1
    for row, ids in zip(pooled["embeddings"], rows(), strict=True):
        check("mean", row, hidden(model, ids[:20]).mean(0), 1e-4)


def quantisable(folder):
    """An encoder whose matrices' rows are multiples of 64."""
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=96, d_model=128, d_kv=32, d_ff=256, num_heads=4, num_layers=3, feed_forward_proj="gated-gelu")
    transformers.T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pool", ("none", "mean"))
def test_cosine_with_the_unquantised_model(pool, tmp_path):
    """The figures printed are those of the tensors written and transformers' states."""
    folder = quantisable(tmp_path / "model")
    model = transformers.T5EncoderModel.from_pretrained(folder)
    switchyard("convert", "--from", folder, "--to", tmp_path / "small", "--dtype", "int4")
    told = embed(tmp_path / "small", tmp_path, "--compare", folder, "--pool", pool)
    states = load_file(tmp_path / "out.safetensors")
    cosines = []
    for number, ids in enumerate(rows(), 1):
        expected = hidden(model, ids)
        actual, expected = (states[str(number)], expected) if pool == "none" else (states["embeddings"][number - 1 : number], expected.mean(0, keepdim=True))
        cosines += [(value, number, token) for token, value in enumerate(torch.cosine_similarity(actual, expected).tolist())]
    worst, line, token = min(cosines)
    assert 0.9 < worst < 0.9999  # int4 is seen
    assert told["cosine_worst"] == pytest.approx(worst, abs=1e-5) and told["worst_line"] == line
    assert told.get("worst_token") == (token if pool == "none" else None)
    assert told["cosine_mean"] == pytest.approx(sum(each[0] for each in cosines) / len(cosines), abs=1e-5)
    same = embed(folder, tmp_path, "--compare", folder, "--pool", pool)
    assert same["cosine_worst"] == pytest.approx(1, abs=1e-9)


def test_what_does_not_fit_is_refused(model_folder, tmp_path):
    folder = model_folder("t5")
    out = tmp_path / "out.safetensors"

    def refuse(text, *options):
        done = subprocess.run([PROGRAM, "embed", "--model", folder, "--ids", "--output", out, *options], input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and not out.exists(), done
        return done.stderr

    assert "standard input:2: expected ids separated by spaces, got \"5 x\"" in refuse("5 1\n5 x\n")
    assert "line 2: " in refuse("5 1\n5 96\n")
    assert "line 1: prompt is empty" in refuse("\n")
    assert "has no line" in refuse("")
    assert "cannot be read" in refuse("", "--input", "/nowhere")
    assert "no experts" in refuse("5 1\n", "--expert-memory", "1GiB")
    quantisable(tmp_path / "wide")
    done = subprocess.run([PROGRAM, "embed", "--model", folder, "--ids", "--output", out, "--compare", tmp_path / "wide"],
                          input="5 1\n", capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and "its states have 128 features" in done.stderr
