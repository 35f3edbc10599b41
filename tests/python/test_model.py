"""Model: its forward pass, states, scores and routing are the program's."""

import json
import subprocess
import sys
import threading

import numpy
import pytest
import safetensors.torch
import torch
from conftest import program

import switchyard

TEXT = "Ada found <extra_id_0> in the harbour of <extra_id_1>."
TARGET = "<extra_id_0> a red lamp <extra_id_1> baro"


@pytest.fixture(scope="module")
def model(run):
    return switchyard.Model.load(run)


def test_load_names_what_is_there(model, run):
    assert model.folder == run / "checkpoints/step-000012"
    assert model.config["num_experts"] == 4 and model.config["d_model"] > 0
    assert len(model.vocabulary) <= model.config["vocab_size"]


def test_vocabulary_is_the_programs(model, run):
    ids = program("vocab", "encode", "--vocab", model.folder, input=TEXT + "\n").split()
    assert model.vocabulary.encode(TEXT) == [int(each) for each in ids]
    assert model.vocabulary.decode(model.vocabulary.encode(TEXT)) == TEXT
    assert model.vocabulary.piece(model.vocabulary.sentinel_id(1)) == "<extra_id_1>"
    assert switchyard.Vocabulary.load(run).encode(TEXT) == model.vocabulary.encode(TEXT)
    with pytest.raises(ValueError, match="extra_id_100"):
        model.vocabulary.sentinel_id(100)


def test_forward_gives_what_the_program_gives(model, tmp_path):
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (3, 17), generator=draw)
    ids[1, 10:] = 0
    labels = torch.randint(3, 200, (3, 9), generator=draw)
    labels[0, 5:] = -100
    given = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}
    safetensors.torch.save_file(given, tmp_path / "in.safetensors")
    program("forward", "--model", model.folder, "--inputs", tmp_path / "in.safetensors", "--output", tmp_path / "out.safetensors")
    expected = safetensors.torch.load_file(tmp_path / "out.safetensors")
    result = model.forward(ids, labels=labels, mask=ids != 0)
    assert torch.equal(result.logits, expected["logits"])
    assert torch.equal(result.encoder_hidden, expected["encoder_last_hidden_state"])
    assert torch.equal(result.loss, expected["loss"]) and result.loss.dim() == 0
    for layer, experts in result.expert_index.items():
        assert torch.equal(experts, expected[f"expert_index.{layer}"])
        assert torch.equal(result.router_logits[layer], expected[f"router_logits.{layer}"])
    assert {layer.split(".")[0] for layer in result.expert_index} == {"encoder", "decoder"}


def test_forward_takes_arrays_and_lists(model):
    table = [[5, 6, 7, 1], [8, 9, 10, 1]]
    expected = model.forward(torch.tensor(table), [[0, 5], [0, 6]]).logits
    assert torch.equal(model.forward(numpy.array(table, dtype=numpy.int32), [[0, 5], [0, 6]]).logits, expected)
    assert torch.equal(model.forward(table, torch.tensor([[0, 5], [0, 6]])).logits, expected)
    alone = model.forward(table)
    assert alone.logits is None and alone.loss is None and alone.encoder_hidden.shape[:2] == (2, 4)


@pytest.mark.parametrize("arguments, message", [
    (dict(ids=[[5, 100000]]), r"ids: ids must lie in \[0, 384\), got 5 to 100000"),
    (dict(ids=[[5, -3]]), "got -3 to 5"),
    (dict(ids=[[5, 6]], decoder_ids=[[0], [0]]), "decoder_ids: 2 rows, but ids has 1"),
    (dict(ids=[[5, 6]], mask=[[1]]), "mask has shape"),
    (dict(ids=[5, 6]), r"ids: expected integers \[batch, length\]"),
    (dict(ids=[[0.5]]), "ids: expected integers"),
])
def test_forward_refuses(model, arguments, message):
    arguments.setdefault("decoder_ids", [[0]])
    with pytest.raises(ValueError, match=message):
        model.forward(**arguments)


def test_tensors_share_memory_and_outlive_the_model(run):
    model = switchyard.Model.load(run)
    result = model.forward([[5, 6, 7, 1]], [[0, 5]])
    kept = result.logits.clone()
    pointer = result.logits.data_ptr()
    assert torch.from_dlpack(result.logits).data_ptr() == pointer
    del model
    assert torch.equal(result.logits, kept)


def test_encode_gives_each_texts_states(model):
    texts = [TEXT, "Bruno sold seven apples.", TEXT]
    states = model.encode(texts)
    for text, each in zip(texts, states):
        ids = [*model.vocabulary.encode(text), 1]
        assert each.shape == (len(ids), model.config["d_model"])
        torch.testing.assert_close(each, model.forward([ids]).encoder_hidden[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(each, model.encode(text)) and torch.equal(each, model.encode(ids))
    assert not torch.equal(states[0], states[1])


def test_bf16_states_are_bf16(run):
    states = switchyard.Model.load(run, dtype="bf16").encode(TEXT)
    assert states.dtype == torch.bfloat16 and states.float().isfinite().all()


def test_score_is_the_programs(model):
    pairs = [(TEXT, TARGET), (TEXT, "<extra_id_0> the old bridge <extra_id_1> roka")]
    lines = "".join(f"{prompt}\t{target}\n" for prompt, target in pairs)
    expected = [json.loads(line) for line in program("generate", "--model", model.folder, "--score", "--json", input=lines).splitlines()]
    scores = model.score(pairs)
    assert [each.score for each in scores] == [each["score"] for each in expected]
    assert [each.token_scores for each in scores] == [each["token_scores"] for each in expected]
    ids = [(model.vocabulary.encode(prompt) + [1], model.vocabulary.encode(target) + [1]) for prompt, target in pairs]
    assert model.score(ids) == scores
    with pytest.raises(ValueError, match="prompt is empty"):
        model.score([([], [5])])


def test_routing_names_each_tokens_expert(model):
    routing = model.routing(TEXT, TARGET)
    ids, targets = [*model.vocabulary.encode(TEXT), 1], [*model.vocabulary.encode(TARGET), 1]
    assert routing.encoder_pieces == [model.vocabulary.piece(each) for each in ids]
    assert len(routing.decoder_pieces) == len(targets)
    passed = model.forward([ids], labels=[targets])
    assert [layer.layer for layer in routing.layers] == list(passed.expert_index)
    for layer in routing.layers:
        # A token that a capacity dropped has no expert in one of the two passes.
        pairs = [(own[0], there) for own, there in zip(layer.experts, passed.expert_index[layer.layer][0].tolist()) if own and there >= 0]
        assert len(pairs) > len(layer.experts) // 2 and all(own == there for own, there in pairs)
        assert layer.num_experts == 4 and sum(layer.load()) == pytest.approx(1)
        assert all(0.25 <= gate <= 1 for gate, own in zip(layer.gates, layer.experts) if own)
    assert model.routing(TEXT).decoder == []


def test_errors_are_value_errors_with_the_programs_message(run, tmp_path):
    for arguments, message in [((tmp_path / "none",), "none"), ((run, "fp12"), 'dtype "fp12": expected auto, bf16, fp32 or fp64'),
                               ((run, "fp32", "tpu"), "expected cpu, cuda or auto")]:
        with pytest.raises(ValueError, match=message):
            switchyard.Model.load(arguments[0], **dict(zip(("dtype", "device"), arguments[1:])))


def test_threads_compute_at_the_same_time_and_python_runs_beside_them(run):
    model = switchyard.Model.load(run)
    expected = [model.score([(TEXT, TARGET)]), model.encode(TEXT)]
    results, errors = [], []

    def work():
        try:
            for _ in range(5):
                results.append(model.score([(TEXT, TARGET)]) == expected[0] and torch.equal(model.encode(TEXT), expected[1]))
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and results == [True] * 20


@pytest.mark.parametrize("first", ["torch", "switchyard._native", "sentencepiece"])
def test_any_import_order(run, first):
    """SentencePiece loaded behind torch, with its symbols seen first, would write over libc10's variables."""
    code = f"""
import importlib, sys
importlib.import_module("{first}")
import switchyard, torch, ctypes, pathlib
model = switchyard.Model.load("{run}")
print(model.generate("{TEXT}", max_tokens=6).ids)
library = ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib/libc10.so"))
print(ctypes.c_bool.in_dll(library, "FLAGS_caffe2_use_fatal_for_enforce").value)
print(torch.ones(3).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = switchyard.Model.load(run).generate(TEXT, max_tokens=6).ids
    assert done.stdout.splitlines() == [str(expected), "False", "3.0"], done.stderr


def test_python_dash_m_is_the_program(run):
    done = subprocess.run([sys.executable, "-m", "switchyard", "generate", "--model", run, "--prompt", TEXT, "--json"],
                          capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads(program("generate", "--model", run, "--prompt", TEXT, "--json"))
    refused = subprocess.run([sys.executable, "-m", "switchyard", "generate"], capture_output=True, text=True)
    assert refused.returncode == 2 and "--model" in refused.stderr
