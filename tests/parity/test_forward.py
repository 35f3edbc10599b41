"""`switchyard forward` against transformers on the same weights: outputs, routing, loss and every gradient.

Where transformers is wrong (test_faults.py), the comparison goes round its fault:
  - padding takes expert slots there: padded inputs on the left are compared only where capacity does not bind;
  - balance and z-loss are pooled over layers and count padding: compared with one sparse layer a stack and no padding;
  - jitter reaches the experts: everything here is evaluation mode.
"""

import dataclasses
import json
import shutil

import pytest
import reference
import torch
from compare import check, forward, relative_error
from models import MODELS

LOGITS, GRADIENTS, DOUBLE = 1e-4, 1e-3, 1e-9  # relative to the tensor's largest magnitude


@dataclasses.dataclass
class Batch:
    rows: int
    encoder_length: int
    decoder_length: int
    padding: str = ""  # of the encoder: "", "left" or "right"
    ignored: bool = False  # the ends of labels are -100, by row
    mask: bool = True  # an attention mask is given

    def inputs(self, vocab_size: int, seed: int = 5) -> dict:
        generator = torch.Generator().manual_seed(seed)

        def draw(length):
            return torch.randint(2, vocab_size, (self.rows, length), generator=generator)

        ids, labels = draw(self.encoder_length), draw(self.decoder_length)
        mask = torch.ones_like(ids)
        for row in range(self.rows):
            pad = (2 * row + 1) % self.encoder_length if self.padding else 0
            place = slice(0, pad) if self.padding == "left" else slice(self.encoder_length - pad, None)
            ids[row, place], mask[row, place] = 0, 0
            if self.ignored:
                labels[row, self.decoder_length - row :] = -100
        return {"input_ids": ids, "labels": labels} | ({"attention_mask": mask} if self.mask else {})


BATCHES = {
    "plain": Batch(3, 17, 11, mask=False),
    "right": Batch(4, 19, 9, padding="right", ignored=True),
    "left": Batch(3, 18, 8, padding="left", ignored=True),
    "one_token": Batch(1, 1, 1),
    "long": Batch(1, 301, 157),  # beyond the largest bucket of the position bias
}
# What differs from another model in the shape of its stacks only meets two batches.
SHAPES = {"t5_gelu", "mt5_tied", "t5_decoder_table", "t5_scaled_head", "switch_scaled_head", "switch_thirds", "switch_encoder_only", "switch_none_sparse", "switch_count_zero"}
DROPS = {"switch_overflow", "switch_all_sparse"}  # models whose capacity binds on every batch but "one_token"


def compare(out: dict, expected: dict, inputs: dict, logits: float, gradients: float) -> None:
    real = {
        "encoder": inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool(),
        "decoder": inputs["labels"].ne(-100) if "labels" in inputs else torch.ones_like(inputs["decoder_input_ids"]).bool(),
    }
    # A gradient that is zero in theory (one key: nothing to choose from) is a difference of dot products over d_kv <= 16
    # terms, so it may be off by that many roundings of the largest gradient.
    largest = max((value.abs().max().item() for name, value in expected.items() if name.startswith("grad.")), default=0.0)
    rounding = 16 * torch.finfo(expected["logits"].dtype).eps * largest
    for name, value in expected.items():
        assert name in out, f"{name} is missing; there are {sorted(out)[:20]} ..."
        if name.startswith("grad."):
            check(name, out[name], value, gradients, rounding)
        elif name in ("loss", "load_balance_loss", "router_z_loss"):
            check(name, out[name].reshape(()), value, logits)
        else:
            kept = real["decoder" if name == "logits" or ".decoder." in name else "encoder"]
            if name.startswith("expert_index"):
                assert torch.equal(out[name][kept], value[kept]), f"{name}: {out[name]} and {value}"
            else:
                check(name, out[name][kept], value[kept], logits)
    surplus = {name for name in out if name.startswith("grad.")} - set(expected)
    assert not surplus or not any(name.startswith("grad.") for name in expected), f"unknown parameters: {sorted(surplus)}"


def cases():
    for model in MODELS:
        for batch, value in BATCHES.items():
            if model in DROPS and value.padding == "left":
                continue  # transformers gives padding the first slots
            if model not in SHAPES or batch in ("plain", "left"):
                yield model, batch


@pytest.mark.parametrize("model,batch", list(cases()))
def test_equals_transformers(model, batch, model_folder, hf_model, tmp_path):
    reference_model = hf_model(model)
    inputs = BATCHES[batch].inputs(reference_model.config.vocab_size)
    expected = reference.forward(reference_model, inputs, gradients=True)
    if model in DROPS and batch != "one_token":
        assert any((value == -1).any() for name, value in expected.items() if name.startswith("expert_index"))
    out = forward(model_folder(model), inputs, tmp_path, "--gradients")
    compare(out, expected, inputs, LOGITS, GRADIENTS)


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("model", ["t5_v1_1", "umt5", "switch_overflow", "switch_uneven"])
def test_equals_transformers_in_double(model, kernels, model_folder, hf_model, tmp_path):
    reference_model = hf_model(model, torch.float64)
    inputs = BATCHES["right"].inputs(reference_model.config.vocab_size, seed=6)
    expected = reference.forward(reference_model, inputs, gradients=True)
    out = forward(model_folder(model), inputs, tmp_path, "--gradients", "--dtype", "fp64", "--kernels", kernels)
    assert out["logits"].dtype == torch.float64
    compare(out, expected, inputs, DOUBLE, DOUBLE)


@pytest.mark.parametrize("model", ["t5", "switch_all_sparse"])
def test_reference_kernels_equal_transformers(model, model_folder, hf_model, tmp_path):
    inputs = BATCHES["right"].inputs(96, seed=7)
    expected = reference.forward(hf_model(model), inputs, gradients=True)
    out = forward(model_folder(model), inputs, tmp_path, "--gradients", "--kernels", "reference")
    compare(out, expected, inputs, LOGITS, GRADIENTS)


@pytest.mark.parametrize("model", ["switch", "switch_overflow", "switch_router_bias"])
def test_router_losses_and_their_gradients(model, model_folder, hf_model, tmp_path):
    inputs = BATCHES["plain"].inputs(96, seed=8)
    expected = reference.forward(hf_model(model), inputs, gradients=True, router_losses=True)
    out = forward(model_folder(model), inputs, tmp_path, "--gradients", "--router-losses")
    compare(out, expected, inputs, LOGITS, GRADIENTS)
    plain = forward(model_folder(model), inputs, tmp_path, "--gradients")
    router = "grad.encoder.block.1.layer.1.mlp.router.classifier.weight"
    assert relative_error(plain[router], expected[router]) > GRADIENTS, "the router losses have no visible gradient here"


def test_decoder_inputs_in_place_of_labels(model_folder, hf_model, tmp_path):
    inputs = BATCHES["right"].inputs(96, seed=9)
    inputs["decoder_input_ids"] = torch.randint(2, 96, inputs.pop("labels").shape, generator=torch.Generator().manual_seed(3))
    out = forward(model_folder("switch"), inputs, tmp_path)
    compare(out, reference.forward(hf_model("switch"), inputs), inputs, LOGITS, GRADIENTS)


@pytest.mark.parametrize("model", ["t5", "switch"])
def test_padding_content_does_not_matter(model, model_folder, tmp_path):
    inputs = BATCHES["left"].inputs(96, seed=10)
    clean = forward(model_folder(model), inputs, tmp_path)
    inputs["input_ids"] = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 77)
    dirty = forward(model_folder(model), inputs, tmp_path)
    check("logits", dirty["logits"], clean["logits"], 1e-6)


WRONG = {
    "epsilon": ("t5", "layer_norm_epsilon", 1e-3),
    "bucket distance": ("t5_buckets", "relative_attention_max_distance", 24),
    "capacity": ("switch_overflow", "expert_capacity", 3),
    "activation": ("t5_v1_1", "feed_forward_proj", "gated-relu"),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_model_is_noticed(change, model_folder, hf_model, tmp_path):
    """Guards the comparison itself: each of these models differs from its reference in one field only."""
    model, key, value = WRONG[change]
    folder = shutil.copytree(model_folder(model), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config[key] = value
    if key == "feed_forward_proj":
        config["dense_act_fn"] = value.split("-")[-1]
    (folder / "config.json").write_text(json.dumps(config))
    inputs = BATCHES["long"].inputs(96)
    with pytest.raises(AssertionError):
        compare(forward(folder, inputs, tmp_path), reference.forward(hf_model(model), inputs), inputs, LOGITS, GRADIENTS)
