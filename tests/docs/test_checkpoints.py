"""docs/checkpoints.md, taken at its word: a run's files are read as it says, with nothing of the program."""

import json
import re
import shutil
import struct
import subprocess
import tomllib
import zlib

import pytest
from conftest import PROGRAM, SOURCE, write_text

PAGE = (SOURCE / "docs/checkpoints.md").read_text()


def run(*words, **options):
    subprocess.run([PROGRAM, *map(str, words)], check=True, capture_output=True, timeout=120, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    desk = tmp_path_factory.mktemp("files")
    write_text(desk / "books/a.txt", 3000, 1)
    run("vocab", "train", "--text", desk / "books", "--size", 200, "--out", desk / "spiece.model")
    (desk / "run.toml").write_text("""
[model]
preset = "switch-tiny-4"
router_bias = true
selection_bias_rate = 0.001
shared_expert_d_ff = 16
d_ff = 160
[data]
text = ["books"]
eval_text = ["books"]
vocab = "spiece.model"
encoder_length = 48
[train]
steps = 3
batch_size = 2
eval_examples = 2
[optimizer]
min_dim_size_to_factor = 64
""")
    run("train", desk / "run.toml", "--out", desk / "runs/books", "--quiet", "--threads", 1)
    run("train", desk / "run.toml", "--out", desk / "runs/adamw", "--quiet", "--threads", 1, "--set", "optimizer.name=adamw")
    return desk


def read_safetensors(path):
    """Shapes and bytes by name."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    assert sum(end - begin for begin, end in (entry["data_offsets"] for entry in header.values())) == len(body)
    return {name: (entry["shape"], body[slice(*entry["data_offsets"])]) for name, entry in header.items() if entry["dtype"] == "F32"}


def test_folder(folder):
    books = folder / "runs/books"
    listed = set(re.findall(r"^  (\S+?),? ", PAGE.split("```")[1], re.MULTILINE)) | {"best"}
    names = {"events.out.tfevents.*" if path.name.startswith("events") else path.name for path in books.iterdir()}
    assert names - {"checkpoints"} == {name for name in listed if "/" not in name and name != ".lock"}
    assert (books / "latest").read_text() == "step-000003\n" == (books / "best").read_text()
    assert tomllib.loads((books / "run.toml").read_text())["optimizer"]["min_dim_size_to_factor"] == 64
    assert sorted(path.name for path in (books / "checkpoints").iterdir()) == ["step-000003"]


def test_model(folder):
    model = folder / "runs/books/checkpoints/step-000003"
    section = PAGE.split("## Model directory")[1].split("|")[0]
    for name in re.findall(r"`([\w.]+\.(?:json|model|safetensors))`", section):
        if name != "model.safetensors.index.json":
            assert (model / name).exists(), name
    tensors = read_safetensors(model / "model.safetensors")
    for ending in ("router.classifier.bias", "router.selection_bias", "shared_expert.wi.weight", "shared_expert.wo.weight"):
        assert any(name.endswith(".mlp." + ending) for name in tensors), ending
    assert tensors["encoder.block.1.layer.1.mlp.experts.expert_3.wi.weight"][0] == [160, 64]
    block = json.loads((model / "config.json").read_text())["switchyard"]
    assert block["shared_expert_d_ff"] == 16 and block["group_size"] == 1024


def test_what_rules_in_config(folder, tmp_path):
    """HF's key for what HF says exactly, the block for the rest."""
    model = shutil.copytree(folder / "runs/books/checkpoints/step-000003", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["layer_norm_epsilon"], config["switchyard"]["layer_norm_epsilon"] = 1e-5, 1e-3
    config["switchyard"]["group_size"] = 77
    (model / "config.json").write_text(json.dumps(config))
    said = json.loads(subprocess.run([PROGRAM, "inspect", model, "--json"], check=True, capture_output=True, text=True).stdout)["config"]
    assert (said["layer_norm_epsilon"], said["group_size"]) == (1e-5, 77)


def test_training(folder):
    training = folder / "runs/books/checkpoints/step-000003/training"
    assert {path.name for path in training.iterdir()} == {"state.json", "optimizer.safetensors", "evaluation.json"}
    state = json.loads((training / "state.json").read_text())
    assert (state["version"], state["step"]) == (1, 3)
    named = PAGE.split("`state` has")[1].split("There is no position")[0]
    assert set(state["state"]) == set(re.findall(r"`(\w+)`", named))
    slots = read_safetensors(training / "optimizer.safetensors")
    experts = "encoder.block.1.layer.1.mlp.experts.wi.weight"
    assert slots[experts + ".v_row"][0] == [4, 64] and slots[experts + ".v_col"][0] == [4, 160]
    assert slots["encoder.final_layer_norm.weight.v"][0] == [64]
    adamw = read_safetensors(folder / "runs/adamw/checkpoints/step-000003/training/optimizer.safetensors")
    assert adamw[experts + ".m"][0] == adamw[experts + ".v"][0] == [4, 160, 64]


def test_token_cache(folder):
    cache = next((folder / "runs/.cache").glob("a.txt-*.tokens")).read_bytes()
    offsets = [int(offset) for offset in re.findall(r"^\| (\d+) \| \d+ \|", PAGE, re.MULTILINE)]
    trailer = cache[-48:]
    magic, width, key_bytes, tokens, documents, text_bytes, payload, checksum = struct.unpack("<8sIIqqqII", trailer)
    assert offsets == [0, 8, 12, 16, 24, 32, 40, 44] and magic == b"SYOKENS1"
    assert checksum == zlib.crc32(trailer[:44]) and payload == zlib.crc32(cache[:-48])
    assert len(cache) == tokens * width + key_bytes + 48 and width == 2
    assert documents > 1 and 0 < text_bytes <= (folder / "books/a.txt").stat().st_size
    assert b"a.txt\nvocabulary " in cache[tokens * width : -48]
    assert max(struct.unpack(f"<{tokens}H", cache[: tokens * width])) < 200


def test_metrics(folder):
    lines = [json.loads(line) for line in (folder / "runs/books/metrics.jsonl").read_text().splitlines()]
    named = PAGE.split("## metrics.jsonl")[1]
    for name in re.findall(r"`(\w+)`", named.split("objects by")[0]):
        assert name in lines[0], name
    for name in re.findall(r"`(\w+)`", named.split("such as")[1].split("Lines of an")[0]):
        assert set(lines[0][name]) == {"encoder.1", "decoder.1"}, name
    evaluation = [line for line in lines if "eval_loss" in line][0]
    assert all(name == "step" or name.startswith("eval_") for name in evaluation)
