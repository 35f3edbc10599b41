"""What Switchyard writes, transformers opens: weights, config and vocabulary of a model trained here for two steps."""

import importlib
import inspect
import json

import pytest
import reference
import torch
import transformers
from compare import check, forward, switchyard
from models import load_model, open_model
from safetensors.torch import load_file

RUN = """
[model]
preset = "switch-mini-8"
d_model = 32
d_ff = 48
d_kv = 8
num_heads = 4
num_encoder_layers = 2
num_decoder_layers = 2
num_experts = 4
eval_capacity_factor = 4.0   # as many slots as tokens: no drops, whatever the grouping
{model}

[data]
text = ["text.txt"]
eval_text = ["text.txt"]
vocab = "spiece.model"
encoder_length = 64

[train]
steps = 2
batch_size = 4
dtype = "fp32"
save_every = 2
eval_examples = 4

[optimizer]
name = "adafactor"
learning_rate = 0.01
"""
SPARSE = ""
DENSE = "num_experts = 0\nencoder_sparse_step = 0\ndecoder_sparse_step = 0\n"
FORMS = {
    "sparse": SPARSE,
    "sparse untied": "tie_output = false\n",
    "sparse with a scaled head": "tie_output = false\nscale_output = true\n",
    "sparse tied, not scaled": "scale_output = false\n",
    "sparse with an encoder's table": "tie_encoder_input = false\n",
    # 0 means 0, which transformers' own configs cannot say: a count of 0 there makes block 1 sparse.
    "decoder sparse": "encoder_sparse_step = 0\n",
    "all sparse": "encoder_sparse_step = 1\ndecoder_sparse_step = 1\n",
    "dense": DENSE,
    "dense with a bias every layer": DENSE + 'gated = true\nactivation = "gelu_new"\nrelative_bias_every_layer = true\n',
    "dense tied, not scaled": DENSE + "scale_output = false\n",
    "dense with its own tables": DENSE + "tie_output = false\nscale_output = true\ntie_decoder_input = false\n",
    "dense gated untied": DENSE + 'gated = true\nactivation = "gelu_new"\ntie_output = false\n',
}
MODULES = ["argparse", "collections", "datetime", "decimal", "logging", "random", "statistics", "string", "unittest.mock"]


def documentation() -> str:
    """Some 100 kB of English that every Python has."""
    paragraphs = []
    for name in MODULES:
        module = importlib.import_module(name)
        things = [module, *(value for _, value in sorted(vars(module).items()) if inspect.isclass(value))]
        for thing in things:
            members = [thing, *(value for _, value in sorted(vars(thing).items()) if callable(value))]
            paragraphs += [inspect.getdoc(member) or "" for member in members if not isinstance(member, str)]
    return "\n\n".join(dict.fromkeys(text for text in paragraphs if text)) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """runs(form): the checkpoint of a two-step training of that form, made once."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(documentation())
    switchyard("vocab", "train", "--text", folder / "text.txt", "--size", 600, "--out", folder / "spiece.model")
    made = {}

    def train(form):
        if form not in made:
            lines = {line.split(" = ")[0] for line in FORMS[form].splitlines()}
            run = "\n".join(line for line in RUN.splitlines() if line.split(" = ")[0] not in lines)
            file = folder / f"{form.replace(' ', '_')}.toml"
            file.write_text(run.format(model=FORMS[form]))
            switchyard("train", file, "--out", file.with_suffix(""), "--quiet", "--threads", 2)
            made[form] = file.with_suffix("") / "checkpoints" / "step-000002"
        return made[form]

    return train


# Positions for which transformers, that derives them from a count, has no number.
POSITIONS = {
    "every third": ("num_encoder_layers = 3\nencoder_sparse_step = 3\n", "encoder 2; decoder 1"),
    "five of six": ("num_encoder_layers = 6\nsparse_encoder_layers = [0, 1, 2, 3, 5]\n", "encoder 0 1 2 3 5; decoder 1"),
}


@pytest.mark.parametrize("form", POSITIONS)
def test_any_position_may_be_sparse(form, runs, tmp_path):
    FORMS[form], blocks = POSITIONS[form]
    checkpoint = runs(form)
    assert json.loads(switchyard("inspect", checkpoint, "--json"))["routing"][1] == f"sparse blocks: {blocks}"
    inputs = {"input_ids": torch.arange(2, 32).view(2, 15), "labels": torch.arange(40, 54).view(2, 7)}
    out = forward(checkpoint, inputs, tmp_path)
    assert {name for name in out if ".encoder." in name} == {
        f"{kind}.encoder.{block}" for kind in ("router_logits", "expert_index") for block in blocks.split(";")[0].split()[1:]
    }
    assert open_model(checkpoint)[1]["unexpected_keys"], "transformers can say this now: make it a form above"


@pytest.mark.parametrize("form", FORMS)
def test_transformers_opens_a_checkpoint(form, runs, tmp_path):
    checkpoint = runs(form)
    model = load_model(checkpoint)  # asserts that no weight is missing or left over
    for module in model.modules():
        if type(module).__name__.endswith("Top1Router"):
            module.expert_capacity = 10_000  # transformers knows no capacity factor; no drops on either side
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randint(2, 600, (3, length), generator=generator) for name, length in (("input_ids", 23), ("labels", 9))}
    expected = reference.forward(model, inputs)
    out = forward(checkpoint, inputs, tmp_path)
    check("logits", out["logits"], expected["logits"], 1e-4)
    check("loss", out["loss"].reshape(()), expected["loss"], 1e-4)
    routed = [name for name in expected if name.startswith("expert_index")]
    assert len(routed) == (0 if form.startswith("dense") else {"decoder sparse": 1, "all sparse": 4}.get(form, 2))
    for name in routed:
        assert torch.equal(out[name], expected[name]), name


def test_training_goes_on_from_a_run_and_keeps_what_is_tied(runs, tmp_path):
    run = runs("dense tied, not scaled").parents[1]
    (tmp_path / "on.toml").write_text(
        f'[model]\ninit = "{run}"\n[data]\ntext = ["{run.parent}/text.txt"]\nvocab = "{run}"\nencoder_length = 64\n'
        '[train]\nsteps = 1\nbatch_size = 2\ndtype = "fp32"\n'
    )
    switchyard("train", tmp_path / "on.toml", "--out", tmp_path / "on", "--quiet", "--threads", 2)
    before, after = (load_file(folder / "model.safetensors") for folder in (runs("dense tied, not scaled"), tmp_path / "on/checkpoints/step-000001"))
    assert "lm_head.weight" not in after and before.keys() == after.keys()
    assert not torch.equal(before["shared.weight"], after["shared.weight"])
    model = load_model(tmp_path / "on/checkpoints/step-000001")
    assert model.lm_head.weight is model.shared.weight and not model.config.scale_decoder_outputs


def test_a_copy_by_transformers_is_the_same_model(runs, tmp_path):
    model = load_model(runs("sparse"))
    model.save_pretrained(tmp_path / "copy")
    inputs = {"input_ids": torch.arange(2, 32).view(2, 15), "labels": torch.arange(40, 54).view(2, 7)}
    check("logits", forward(tmp_path / "copy", inputs, tmp_path)["logits"],
          forward(runs("sparse"), inputs, tmp_path)["logits"], 1e-6)  # fmt: skip


CONVERSIONS = {
    "shards": ("switch", ["--max-shard-size", "30KB"]),
    "bf16": ("switch", ["--dtype", "bf16"]),
    "untied in fp16": ("switch_untied", ["--dtype", "fp16", "--max-shard-size", "40KB"]),
    "dense": ("t5_v1_1", ["--dtype", "fp32"]),
    "tied, not scaled": ("t5_unscaled", []),
    "a scaled head": ("switch_scaled_head", []),
    "own input tables": ("switch_own_tables", ["--max-shard-size", "30KB"]),
    "a decoder's table": ("t5_decoder_table", ["--dtype", "bf16"]),
    "without sparse layers": ("switch_none_sparse", []),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_transformers_opens_what_convert_writes(conversion, model_folder, tmp_path):
    name, options = CONVERSIONS[conversion]
    switchyard("convert", "--from", model_folder(name), "--to", tmp_path / "model", *options)
    if "--max-shard-size" in options:
        assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 2
    dtype = torch.bfloat16 if "bf16" in options else torch.float16 if "fp16" in options else torch.float32
    # The source, rounded to what is stored, computes in fp32 what the copy does.
    before, after = load_model(model_folder(name), dtype).float(), load_model(tmp_path / "model")
    generator = torch.Generator().manual_seed(1)
    inputs = {key: torch.randint(2, 96, (2, length), generator=generator) for key, length in (("input_ids", 15), ("labels", 9))}
    expected = reference.forward(before, inputs)
    check("logits", reference.forward(after, inputs)["logits"], expected["logits"], 1e-6)
    check("logits", forward(tmp_path / "model", inputs, tmp_path)["logits"], expected["logits"], 1e-4)


def test_transformers_opens_an_upcycled_model(model_folder, tmp_path):
    switchyard("convert", "--from", model_folder("t5"), "--to", tmp_path / "model", "--upcycle-experts", 4)
    inputs = {"input_ids": torch.tensor([[5, 9, 70, 1]]), "labels": torch.tensor([[8, 33, 1]])}  # too few to be dropped
    expected = reference.forward(load_model(tmp_path / "model"), inputs)
    check("logits", forward(tmp_path / "model", inputs, tmp_path)["logits"], expected["logits"], 1e-4)


def test_transformers_tokenizes_alike(runs):
    checkpoint = runs("sparse")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    lines = ["Return the number of elements.", "a b  c", "The quick brown fox is a dog!"]
    ours = switchyard("vocab", "encode", "--vocab", checkpoint / "spiece.model", stdin="\n".join(lines) + "\n").splitlines()
    for line, ids in zip(lines, ours, strict=True):
        assert [int(id) for id in ids.split()] == tokenizer(line, add_special_tokens=False).input_ids, line
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == tokenizer.convert_tokens_to_ids("<extra_id_99>") + 99
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)


def test_transformers_decodes_alike(runs):
    """Greedy continuation, token by token, of a model whose outputs are far from uniform."""
    checkpoint = runs("dense")
    model = load_model(checkpoint)
    prompt = torch.tensor([[17, 230, 45, 99, 310, 8, 1]])
    with torch.no_grad():
        theirs = model.generate(prompt, max_new_tokens=12, min_new_tokens=12, num_beams=1, do_sample=False)[0, 1:].tolist()
    answer = switchyard("generate", "--model", checkpoint, "--ids", "--json", "--max-tokens", 12, "--min-tokens", 12,
                        "--dtype", "fp32", stdin=" ".join(map(str, prompt[0].tolist())) + "\n")  # fmt: skip
    assert json.loads(answer)["ids"] == theirs


def test_a_stop_string_ends_alike(runs):
    """Stop strings are matched on the text, within tokens and across them."""
    checkpoint = runs("dense")
    model, tokenizer = load_model(checkpoint), transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    prompt = "Return the number of elements, as <extra_id_0> would."
    ids = tokenizer(prompt, return_tensors="pt").input_ids

    def ours(*options):
        return json.loads(switchyard("generate", "--model", checkpoint, "--json", "--max-tokens", 24, "--min-tokens", 24,
                                     "--no-repeat-ngram", 1, "--dtype", "fp32", *options, "--prompt", prompt))  # fmt: skip

    free = ours()
    assert len(set(free["ids"])) == 24
    plain = free["text"].split("<")[0]  # transformers matches no sentinels
    assert len(plain) >= 16
    for begin, length in ((4, 1), (2, 6), (7, 9), (0, 16)):
        stop = plain[begin : begin + length]
        with torch.no_grad():
            theirs = model.generate(ids, max_new_tokens=24, min_new_tokens=24, no_repeat_ngram_size=1, stop_strings=[stop, "@@"],
                                    tokenizer=tokenizer, do_sample=False)[0, 1:].tolist()  # fmt: skip
        answer = ours("--stop", stop, "--stop", "@@")
        assert answer["ids"] == theirs, stop
        assert answer["text"] == free["text"][: free["text"].index(stop)]
        assert len(theirs) < len(free["ids"]), "the string came too late to stop anything"
