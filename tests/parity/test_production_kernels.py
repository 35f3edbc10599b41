"""The fast products and attention against transformers, at sizes that they take: `switchyard forward` and `generate`.

A product of up to eight rows of a matrix takes another kernel than one of more, and a block has 64 rows: batches have 1
to 9 tokens, and 65. bf16 is held against transformers in float64 on the weights as bf16 holds them.
"""

import json

import pytest
import reference
import torch
from compare import check, forward, metadata, switchyard
from models import FAST_MODELS, load_model
from test_forward import GRADIENTS, LOGITS, Batch, compare
from test_generate import PROMPTS, expected, generate, shown

BATCHES = {f"{rows} rows": Batch(1, rows, rows, mask=False) for rows in (1, 2, 3, 4, 5, 6, 7, 8, 9)} | {
    "65 rows": Batch(5, 13, 13, mask=False),
    "padded": Batch(4, 19, 9, padding="right", ignored=True),
}


def assert_fast(folder) -> None:
    counts = metadata(folder / "out.safetensors")
    assert int(counts["plain_products"]) == int(counts["plain_attention"]) == 0, counts
    assert int(counts["fused_products"]) > 20 and int(counts["fused_attention"]) >= 6, counts


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model", FAST_MODELS)
def test_equals_transformers(model, batch, model_folder, hf_model, tmp_path):
    inputs = BATCHES[batch].inputs(200)
    out = forward(model_folder(model), inputs, tmp_path, "--gradients")
    assert_fast(tmp_path)
    compare(out, reference.forward(hf_model(model), inputs, gradients=True), inputs, LOGITS, GRADIENTS)


def rounded(model: torch.nn.Module) -> torch.nn.Module:
    """Its weights as bf16 holds them; routers stay as they are (they compute in float32)."""
    for name, parameter in model.named_parameters():
        if "router" not in name and "layer_norm" not in name and "relative_attention_bias" not in name and "shared" not in name:
            parameter.data = parameter.data.bfloat16().to(parameter.dtype)
    return model


@pytest.mark.parametrize("batch", ["1 rows", "8 rows", "9 rows", "65 rows"])
def test_bf16_is_near_transformers_in_double(batch, model_folder, tmp_path):
    inputs = BATCHES[batch].inputs(200)
    out = forward(model_folder("fast_t5_v1_1"), inputs, tmp_path, "--gradients", "--dtype", "bf16")
    assert_fast(tmp_path)
    wanted = reference.forward(rounded(load_model(model_folder("fast_t5_v1_1"), torch.float64)), inputs, gradients=True)
    # Some fifty roundings to bf16 of the whole pass, each of 2^-9 of its largest number and independent of the others.
    tolerance = 4 * 50**0.5 * 2**-9
    assert out["logits"].dtype == torch.float32
    for name in ("logits", "loss", "encoder_last_hidden_state"):
        check(name, out[name].reshape(wanted[name].shape), wanted[name], tolerance)
    largest = max(value.abs().max() for name, value in wanted.items() if name.startswith("grad."))
    for name, value in wanted.items():
        if name.startswith("grad."):
            check(name, out[name], value, 2 * tolerance, 0.01 * tolerance * largest)


def test_logits_are_not_rounded_to_bf16(model_folder, tmp_path):
    out = forward(model_folder("fast_switch"), BATCHES["65 rows"].inputs(200), tmp_path, "--dtype", "bf16")
    assert (out["logits"].bfloat16().float() != out["logits"]).float().mean() > 0.9


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("model", FAST_MODELS)
def test_generation_equals_transformers(model, beams, model_folder, hf_model):
    """Four prompts together: 4 rows a step in greedy decoding, 12 with three beams."""
    options, hf_options = (["--beams", beams], dict(num_beams=beams)) if beams > 1 else ([], {})
    answers = generate(model_folder(model), PROMPTS, "--max-tokens", 12, *options)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        results = expected(hf_model(model), prompt, 12, hf_options)
        for (ids, score), (hf_ids, hf_score) in zip(shown(answer), results):
            assert ids == hf_ids, f"prompt {prompt}"
            assert score == pytest.approx(hf_score, rel=1e-4, abs=1e-4), f"prompt {prompt}"


def test_bf16_scores_what_it_generates(model_folder):
    """Greedy decoding has a row a prompt, scoring a row a token; before the logits both round the same numbers."""

    def answers(lines, *options):
        printed = switchyard(
            "generate", "--model", model_folder("fast_t5_v1_1"), "--ids", "--json", "--threads", 1, "--dtype", "bf16", *options, stdin=lines
        )
        return [json.loads(line) for line in printed.splitlines()]

    prompts = [" ".join(map(str, prompt)) for prompt in PROMPTS]
    generated = answers("".join(f"{prompt}\n" for prompt in prompts), "--max-tokens", 12)
    lines = [f"{prompt}\t{' '.join(map(str, answer['ids']))}\n" for prompt, answer in zip(prompts, generated, strict=True)]
    for answer, scored in zip(generated, answers("".join(lines), "--score"), strict=True):
        # Some thirty roundings of 2^-9 on the way to a token's log-probability, which is of the size of 1.
        assert scored["score"] == pytest.approx(answer["score"], abs=4 * 30**0.5 * 2**-9 * len(answer["ids"]))
