"""Low-rank adapters: small checkpoints that resume exactly, open like any model, and merge into Hugging Face's layout."""

import json

import numpy
import pytest
from safetensors.numpy import load_file

from conftest import metrics, refused, switchyard


@pytest.fixture(scope="module")
def adapted(workshop, small_run, tmp_path_factory):
    """A run of adapters on the small run, and its run file."""
    folder = tmp_path_factory.mktemp("lora")
    base = small_run / "checkpoints" / (small_run / "latest").read_text().strip()
    text = (workshop / "tiny.toml").read_text().replace('preset = "switch-tiny-4"', f'init = "{base}"')
    for name in ("train.txt", "held.txt", "spiece.model"):
        text = text.replace(f'"{name}"', f'"{workshop / name}"')
    (folder / "lora.toml").write_text(text.replace("[train]", "[train]\nlora_rank = 4\nlora_alpha = 8.0"))
    done = switchyard("train", folder / "lora.toml", "--out", folder / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder, base


def checkpoint(run):
    return run / "checkpoints" / (run / "latest").read_text().strip()


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_checkpoints_are_small_and_merge(adapted, workshop):
    folder, base = adapted
    last = checkpoint(folder / "run")
    assert not (last / "model.safetensors").exists() and size(last) < 0.2 * size(base)
    done = switchyard("convert", "--from", folder / "run", "--to", folder / "merged")
    assert done.returncode == 0, done.stderr
    pairs, config = load_file(last / "adapter_model.safetensors"), json.loads((last / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8.0, str(base))
    before, merged = load_file(base / "model.safetensors"), load_file(folder / "merged/model.safetensors")
    assert before.keys() == merged.keys()
    changed = []
    for name, weight in before.items():
        module = "base_model.model." + name.removesuffix(".weight")
        if module + ".lora_A.weight" in pairs:
            weight = weight + 2.0 * pairs[module + ".lora_B.weight"] @ pairs[module + ".lora_A.weight"]
            changed.append(name.removesuffix(".weight"))
        numpy.testing.assert_allclose(merged[name], weight, rtol=1e-5, atol=1e-6)
    assert sorted(changed) == sorted(config["target_modules"]) and len(pairs) == 2 * len(changed)
    assert not any("experts" in name for name in changed) and any("SelfAttention" in name for name in changed)
    evaluate = ["eval", "--text", workshop / "held.txt", "--encoder-length", 48, "--json", "--model"]
    losses = [json.loads(switchyard(*evaluate, model).stdout)["loss"] for model in (folder / "run", folder / "merged")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_resumes_exactly(adapted):
    folder, _ = adapted
    train = ["train", folder / "lora.toml", "--out", folder / "cut", "--quiet"]
    assert switchyard(*train, "--set", "train.steps=10").returncode == 0
    done = switchyard(*train, "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "cut") == metrics(folder / "run")
    whole, cut = (load_file(checkpoint(folder / run) / "adapter_model.safetensors") for run in ("run", "cut"))
    assert all((whole[name] == cut[name]).all() for name in whole)
    assert "lora_rank: 4 -> 8" in refused(*train, "--resume", "--set", "train.lora_rank=8")


def test_transformers_opens_the_merged_model_and_peft_the_adapters(adapted, workshop):
    transformers = pytest.importorskip("transformers")
    folder, base = adapted
    if not (folder / "merged").exists():
        test_checkpoints_are_small_and_merge(adapted, workshop)
    import torch
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "merged").eval()
    ids = torch.arange(5, 29).view(2, 12)
    expected = merged(input_ids=ids, decoder_input_ids=ids[:, :6]).logits
    peft = pytest.importorskip("peft")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(base).eval()
    model = peft.PeftModel.from_pretrained(model, checkpoint(folder / "run")).eval()
    assert torch.allclose(model(input_ids=ids, decoder_input_ids=ids[:, :6]).logits, expected, atol=1e-4)


def test_what_does_not_fit_is_named(adapted, workshop):
    folder, base = adapted
    assert "model.init" in refused("train", workshop / "tiny.toml", "--out", folder / "refused", "--set", "train.lora_rank=4")
    assert "train.lora_rank = 4000 is more than" in refused("train", folder / "lora.toml", "--out", folder / "refused",
                                                           "--set", "train.lora_rank=4000")
    last = checkpoint(folder / "run")
    config = json.loads((last / "adapter_config.json").read_text())
    other = folder / "moved"
    other.mkdir()
    for path in last.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(folder / "gone")}))
    assert f"adapts the model in {folder / 'gone'}, which is not there" in refused("inspect", other)
