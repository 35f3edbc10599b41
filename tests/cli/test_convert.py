"""convert: what lies in the folder that it writes to, and vocabularies that are none."""

import json
import random

import pytest

from conftest import refused, switchyard


@pytest.fixture(scope="module")
def model(workshop, tmp_path_factory):
    run = tmp_path_factory.mktemp("convert") / "run"
    done = switchyard("train", workshop / "tiny.toml", "--out", run, "--set", "train.steps=1", "--set", "train.eval_every=1")
    assert done.returncode == 0, done.stderr
    return run / "checkpoints" / "step-000001"


def test_weights_of_others_stay(model, tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    message = refused("convert", "--from", model, "--to", tmp_path)
    assert "model.safetensors" in message and "holds weights" in message
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_folder_with_other_files_is_written_to(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    done = switchyard("convert", "--from", model, "--to", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "README.md").read_text() == "mine"
    assert switchyard("inspect", tmp_path).returncode == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_vocab_is_a_sentencepiece_model(workshop, model, tmp_path):
    (tmp_path / "notes.txt").write_text("no vocabulary, but a file\n")
    for name in (tmp_path / "notes.txt", model / "model.safetensors", model / "config.json"):
        message = refused("convert", "--from", model, "--to", tmp_path / "out", "--vocab", name)
        assert str(name) in message and "SentencePiece" in message
        assert not (tmp_path / "out").exists()
    done = switchyard("convert", "--from", model, "--to", tmp_path / "out", "--vocab", workshop / "spiece.model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "spiece.model").read_bytes() == (workshop / "spiece.model").read_bytes()


def test_vocab_fits_the_embedding(workshop, model, tmp_path):
    draw = random.Random(3)
    words = ["".join(draw.choice("abcdefghijklmnopqrst") for _ in range(5)) for _ in range(4000)]
    (tmp_path / "words.txt").write_text("\n".join(" ".join(words[n : n + 8]) for n in range(0, 4000, 4)))
    done = switchyard("vocab", "train", "--text", tmp_path / "words.txt", "--size", 600, "--out", tmp_path / "large.model")
    assert done.returncode == 0, done.stderr
    message = refused("convert", "--from", model, "--to", tmp_path / "out", "--vocab", tmp_path / "large.model")
    assert "large.model: 600 pieces" in message and "rows" in message


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantised_models_are_used_like_others(model, tmp_path, dtype):
    done = switchyard("convert", "--from", model, "--to", tmp_path / "small", "--dtype", dtype, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["dtype"] == dtype, done.stderr
    sizes = {name: (path / "model.safetensors").stat().st_size for name, path in (("whole", model), ("small", tmp_path / "small"))}
    assert sizes["small"] < 0.5 * sizes["whole"]

    said = switchyard("inspect", tmp_path / "small", "--json")
    looked = json.loads(said.stdout)
    assert looked["bytes"] < 0.5 * sizes["whole"]
    assert {tensor["dtype"] for tensor in looked["tensors"] if "SelfAttention.q" in tensor["name"]} == {dtype.upper()}

    def answer(folder, *options):
        said = switchyard("generate", "--model", folder, "--prompt", "ba ro mi", "--max-tokens", "8", "--json", *options)
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    # One step of training: the scores of both are near, whatever they say.
    assert answer(tmp_path / "small")["score"] == pytest.approx(answer(model)["score"], rel=0.2)
    assert switchyard("convert", "--from", tmp_path / "small", "--to", tmp_path / "again").returncode == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "small/model.safetensors").read_bytes()
    assert switchyard("convert", "--from", tmp_path / "small", "--to", tmp_path / "wide", "--dtype", "fp32").returncode == 0
    message = refused("convert", "--from", model, "--to", tmp_path / "model.gguf", "--dtype", dtype)
    assert "fp32, bf16 or fp16" in message
