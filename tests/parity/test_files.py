"""The forms in which the same weights are found in files: shards, PyTorch files, half precision, heads and tables."""

import json
import shutil

import pytest
import reference
import torch
from compare import check, forward
from models import load_model
from safetensors.torch import load_file, save_file

LOGITS = 1e-4


def inputs() -> dict:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randint(2, 96, (2, length), generator=generator) for name, length in (("input_ids", 13), ("labels", 7))}


def check_equal(folder, model, tmp_path) -> dict:
    """Logits, loss and routing of `switchyard forward` are those of transformers' `model`."""
    out, expected = forward(folder, inputs(), tmp_path), reference.forward(model, inputs())
    for name, value in expected.items():
        if name.startswith("expert_index"):
            assert torch.equal(out[name], value), name
        else:
            check(name, out[name].reshape(value.shape), value, LOGITS)
    return out


def write_shards(model, folder):
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def write_bin(model, folder):
    """As transformers wrote before safetensors: tied tables under all of their names, in one storage."""
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def write_bin_shards(model, folder):
    model.config.save_pretrained(folder)
    tensors = model.state_dict()
    names = sorted(tensors)
    files = {name: f"pytorch_model-0000{1 + number % 3}-of-00003.bin" for number, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


@pytest.mark.parametrize("write", [write_shards, write_bin, write_bin_shards])
@pytest.mark.parametrize("name", ["t5", "t5_v1_1", "t5_unscaled", "t5_own_tables", "mt5", "switch", "switch_untied", "switch_own_tables"])
def test_files_hold_the_same_model(name, write, model_folder, hf_model, tmp_path):
    (tmp_path / "other").mkdir()
    write(hf_model(name), tmp_path / "other")
    one = forward(model_folder(name), inputs(), tmp_path)
    many = forward(tmp_path / "other", inputs(), tmp_path)
    assert torch.equal(one["logits"], many["logits"])


def test_files_hold_the_same_model_for_training(model_folder, hf_model, tmp_path):
    (tmp_path / "other").mkdir()
    write_bin_shards(hf_model("switch"), tmp_path / "other")
    one = forward(model_folder("switch"), inputs(), tmp_path, "--gradients")
    many = forward(tmp_path / "other", inputs(), tmp_path, "--gradients")
    assert set(one) == set(many) and all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["t5_v1_1", "switch", "switch_untied"])
def test_stored_in_half_precision(name, dtype, model_folder, tmp_path):
    load_model(model_folder(name), dtype).save_pretrained(tmp_path / "half")
    check_equal(tmp_path / "half", load_model(tmp_path / "half"), tmp_path)


def test_bin_in_half_precision(model_folder, tmp_path):
    model = load_model(model_folder("switch"), torch.float16)
    (tmp_path / "half").mkdir()
    write_bin(model, tmp_path / "half")
    check_equal(tmp_path / "half", model.float(), tmp_path)


def edited(folder, tmp_path, config=None, tensors=None):
    """A copy of a model directory with changes to its config and its tensors."""
    copy = shutil.copytree(folder, tmp_path / "model")
    if config:
        values = json.loads((copy / "config.json").read_text())
        config(values)
        (copy / "config.json").write_text(json.dumps(values))
    if tensors:
        values = load_file(copy / "model.safetensors")
        tensors(values)
        save_file(values, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_published_t5_v1_1_config(model_folder, tmp_path):
    """Files on the hub say tie_word_embeddings false; transformers 5 writes true and scale_decoder_outputs false."""

    def change(config):
        assert config.pop("scale_decoder_outputs") is False
        config["tie_word_embeddings"] = False

    folder = edited(model_folder("t5_v1_1"), tmp_path, config=change)
    check_equal(folder, load_model(folder), tmp_path)


def test_tables_that_old_files_hold_twice(model_folder, hf_model, tmp_path):
    def change(tensors):
        tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.randn(32, 3)
        for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors["shared.weight"].clone()

    check_equal(edited(model_folder("t5"), tmp_path, tensors=change), hf_model("t5"), tmp_path)


@pytest.mark.parametrize("name", ["t5", "switch"])
def test_a_head_of_its_own_under_a_tied_config(name, model_folder, tmp_path):
    """transformers keeps the file's head and scales all the same."""

    def change(tensors):
        tensors["lm_head.weight"] = torch.randn(96, 32, generator=torch.Generator().manual_seed(2))

    folder = edited(model_folder(name), tmp_path, tensors=change)
    out = check_equal(folder, load_model(folder), tmp_path)
    assert not torch.allclose(out["logits"], forward(model_folder(name), inputs(), tmp_path)["logits"], atol=0.1)


def test_an_mt5_without_a_head(model_folder, tmp_path):
    """The embedding, not scaled."""
    folder = model_folder("mt5_tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    check_equal(folder, load_model(folder), tmp_path)
