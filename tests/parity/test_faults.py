"""Where transformers 5.23.0 is wrong: its fault is shown, and Switchyard follows the paper and its code (Mesh, T5X).

A fault that transformers mends fails its test here: then the test moves to the ordinary comparison.
"""

import json
import shutil

import pytest
import reference
import torch
import transformers
from compare import check, forward, relative_error, switchyard
from models import load_model, open_model, save_model
from safetensors.torch import load_file, save_file

LOGITS = 1e-4


def draw(rows, encoder_length, decoder_length, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(2, 96, (rows, length), generator=generator)
            for name, length in (("input_ids", encoder_length), ("labels", decoder_length))}  # fmt: skip


def sparse_blocks(stack):
    return [number for number, block in enumerate(stack.block) if hasattr(block.layer[-1].mlp, "router")]


def test_jitter_does_not_reach_the_experts(tmp_path):
    """transformers multiplies the layer's own input by the router's noise (in fp32; transformers#33969). The paper's
    jitter is the router's alone (App. C): with one expert, whose gate is 1, it changes nothing."""
    folder = save_model("switch", tmp_path / "model", num_experts=1, dropout_rate=0.0, router_jitter_noise=0.4)
    inputs = draw(2, 11, 6)
    evaluation = forward(folder, inputs, tmp_path)
    training = forward(folder, inputs, tmp_path, "--train", "--seed", "3")
    assert relative_error(training["router_logits.encoder.1"], evaluation["router_logits.encoder.1"]) > 0.01, "no jitter"
    check("logits", training["logits"], evaluation["logits"], 1e-6)
    model = load_model(folder)
    check("logits", evaluation["logits"], reference.forward(model, inputs)["logits"], LOGITS)
    assert relative_error(reference.forward(model.train(), inputs)["logits"], evaluation["logits"]) > 0.01, "the fault is gone"


def paper_losses(out):
    """Balance loss and z-loss summed over layers, from router logits [batch, length, experts]; a group is a sequence."""
    balance = z = 0.0
    for name, logits in out.items():
        if name.startswith("router_logits."):
            logits = logits.double()
            experts = logits.shape[-1]
            share = torch.nn.functional.one_hot(logits.argmax(-1), experts).double().mean(1)
            balance += (experts * (share * torch.softmax(logits, -1).mean(1)).sum(-1)).mean()
            z += torch.logsumexp(logits, -1).pow(2).mean()
    return balance, z


def test_stacks_of_sparse_layers_only_have_router_losses(model_folder, hf_model, tmp_path):
    """transformers computes them only for sparse steps above 1: Switch-C, all of whose layers are sparse, gets none."""
    inputs = draw(3, 9, 5)
    out = forward(model_folder("switch_all_sparse"), inputs, tmp_path)
    balance, z = paper_losses(out)
    check("load_balance_loss", out["load_balance_loss"].double().reshape(()), balance, LOGITS)
    check("router_z_loss", out["router_z_loss"].double().reshape(()), z, LOGITS)
    assert balance > 3.5 and z > 1  # four layers, each at least near 1
    theirs = hf_model("switch_all_sparse")(**inputs, output_router_logits=True)
    assert theirs.encoder_aux_loss == 0 and theirs.decoder_z_loss == 0, "the fault is gone"


def test_layers_that_collapse_to_different_experts_are_unbalanced(model_folder, tmp_path):
    """transformers pools a stack's layers before it takes the loss: opposite collapses cancel."""
    folder = save_model("switch_thirds", tmp_path / "model", num_experts=2, router_bias=True)
    tensors = load_file(folder / "model.safetensors")
    for block, bias in ((1, [9.0, -9.0]), (4, [-9.0, 9.0])):
        for stack, layer in (("encoder", 1), ("decoder", 2)):
            prefix = f"{stack}.block.{block}.layer.{layer}.mlp.router.classifier"
            tensors[f"{prefix}.weight"] *= 0.01
            tensors[f"{prefix}.bias"] = torch.tensor(bias)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    inputs = draw(2, 9, 5)
    out = forward(folder, inputs, tmp_path)
    check("load_balance_loss", out["load_balance_loss"].double().reshape(()), paper_losses(out)[0], LOGITS)
    assert abs(out["load_balance_loss"].item() - 8) < 0.01  # 2 a layer, the worst for two experts
    theirs = load_model(folder)(**inputs, output_router_logits=True)
    assert abs((theirs.encoder_aux_loss + theirs.decoder_aux_loss).item() - 2) < 0.01, "the fault is gone"


def test_padding_takes_no_slots_and_enters_no_loss(model_folder, hf_model, tmp_path):
    """transformers stores router_ignore_padding_tokens and never reads it."""
    inputs = draw(1, 13, 7, seed=11)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    alone = forward(model_folder("switch_overflow"), inputs, tmp_path)
    theirs = reference.forward(hf_model("switch_overflow"), inputs)
    check("logits", alone["logits"], theirs["logits"], LOGITS)
    assert (alone["expert_index.encoder.1"] == -1).any()
    pad = torch.zeros(1, 8, dtype=torch.long)
    for side in ("left", "right"):
        padded = dict(inputs)
        for name in ("input_ids", "attention_mask"):
            padded[name] = torch.cat([pad, inputs[name]] if side == "left" else [inputs[name], pad], 1)
        out = forward(model_folder("switch_overflow"), padded, tmp_path)
        check("logits", out["logits"], theirs["logits"], LOGITS)
        real = slice(8, None) if side == "left" else slice(0, 13)
        assert torch.equal(out["expert_index.encoder.1"][:, real], theirs["expert_index.encoder.1"])
        for name in ("load_balance_loss", "router_z_loss"):
            check(name, out[name], alone[name], LOGITS)
        wrong = reference.forward(hf_model("switch_overflow"), padded, router_losses=True)
        if side == "left":
            assert relative_error(wrong["logits"], theirs["logits"]) > 0.01, "the fault is gone"
        assert relative_error(wrong["router_z_loss"], alone["router_z_loss"].reshape(())) > 0.01, "the fault is gone"


def test_the_expert_is_chosen_before_anything_is_rounded(tmp_path):
    """transformers takes the argmax of probabilities rounded to the activations' dtype: near ties go to the lowest index."""
    folder = save_model("switch", tmp_path / "model", num_experts=128)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if "router" in name:
            tensors[name] *= 0.02
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    inputs = draw(4, 200, 60)
    out = forward(folder, inputs, tmp_path, "--dtype", "bf16")
    theirs = reference.forward(load_model(folder, torch.bfloat16), inputs)
    rounded = 0
    for name in ("encoder.1", "decoder.1"):
        assert torch.equal(out[f"expert_index.{name}"], out[f"router_logits.{name}"].argmax(-1)), name
        rounded += (theirs[f"expert_index.{name}"] != theirs[f"router_logits.{name}"].argmax(-1)).sum().item()
    assert rounded > 0, "the fault is gone"


def test_a_gated_sparse_model(model_folder, hf_model, tmp_path):
    """transformers documents dense_act_fn="gated-gelu" and cannot build it. The oracle is its gated T5: a sparse layer
    with one expert, whose gate is 1, is that expert."""
    with pytest.raises(KeyError):
        save_model("switch", tmp_path / "fails", dense_act_fn="gated-gelu")
    dense = hf_model("t5_v1_1")
    tensors = {}
    for name, tensor in dense.state_dict().items():
        if name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            continue
        sparse = ".block.1." in name
        tensors[name.replace("DenseReluDense", "mlp.experts.expert_0" if sparse else "mlp")] = tensor.clone()
        if sparse and "wo" in name:
            module = name[: name.index("DenseReluDense")]
            tensors[module + "mlp.router.classifier.weight"] = torch.randn(1, 32)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {key: value for key, value in dense.config.to_dict().items() if key not in ("feed_forward_proj", "is_gated_act")}
    config |= dict(model_type="switch_transformers", dense_act_fn="gated-gelu", num_experts=1, expert_capacity=64,
                   num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, tie_word_embeddings=False)  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    inputs = draw(2, 12, 7)
    out = forward(folder, inputs, tmp_path)
    assert (out["expert_index.decoder.1"] == 0).all()
    check("logits", out["logits"], reference.forward(dense, inputs)["logits"], LOGITS)


def test_an_untied_model_needs_one_input_table(model_folder, hf_model, tmp_path):
    """transformers unties the stacks' input tables with the output, and fills those that a file lacks with noise."""
    folder = tmp_path / "model"
    hf_model("switch_untied").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for stack in ("encoder", "decoder"):
        del tensors[f"{stack}.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    inputs = draw(2, 12, 7)
    check("logits", forward(folder, inputs, tmp_path)["logits"],
          reference.forward(hf_model("switch_untied"), inputs)["logits"], LOGITS)  # fmt: skip
    assert "encoder.embed_tokens.weight" in open_model(folder)[1]["missing_keys"], "the fault is gone"


@pytest.mark.parametrize("layers, count, theirs, paper", [
    (12, 3, [1, 5, 9], "every fourth: 3 7 11"),
    (12, 0, [1], "0 means 0"),
    (12, 5, [1, 3, 5, 7, 9, 11], "5 does not divide 12"),
])  # fmt: skip
def test_sparse_positions_are_not_those_that_transformers_derives(layers, count, theirs, paper):
    """Switchyard writes positions by a step, or one by one (test_written.py); what it reads, it finds in the files."""
    config = transformers.SwitchTransformersConfig(
        num_layers=layers, num_decoder_layers=1, num_sparse_encoder_layers=count, d_model=8, d_ff=8, num_heads=1, d_kv=8,
        num_experts=2, vocab_size=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.SwitchTransformersForConditionalGeneration(config)
    assert sparse_blocks(model.encoder) == theirs, f"the fault is gone: {paper}"


def test_positions_come_from_the_files(model_folder):
    """Where a config's count says otherwise."""
    def shown(name):
        return json.loads(switchyard("inspect", model_folder(name), "--json"))["routing"][1]

    assert shown("switch_thirds") == "sparse blocks: encoder 1 4; decoder 1 4"
    assert shown("switch_count_zero") == "sparse blocks: encoder 1; decoder 1"
    assert shown("switch_uneven") == "sparse blocks: encoder 1; decoder 1 3"


def test_umt5_scales_only_what_its_config_ties(model_folder, hf_model, tmp_path):
    """transformers 5.23 multiplies umT5's hidden states by d_model^-0.5 whatever the file says. Published files, made for
    transformers 4 and with a head of their own, say tie_word_embeddings false: no scale."""
    folder = shutil.copytree(model_folder("umt5"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].flip(0) + 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    inputs = {"input_ids": torch.arange(2, 32).view(2, 15), "labels": torch.arange(40, 54).view(2, 7)}
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    expected = reference.forward(load_model(folder), inputs)["logits"]
    assert relative_error(expected, reference.forward(hf_model("umt5"), inputs)["logits"]) > 0.1
    check("logits", forward(folder, inputs, tmp_path)["logits"], expected, 1e-4)
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert relative_error(reference.forward(load_model(folder), inputs)["logits"], expected) < 1e-6, "the fault is gone"
    check("logits", forward(folder, inputs, tmp_path)["logits"], expected * config["d_model"] ** 0.5, 1e-4)
