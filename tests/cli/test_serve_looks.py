"""What a server tells beside completions: vectors, the experts of a text's tokens, properties, metrics, its log."""

import base64
import json
import struct

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from conftest import switchyard
from served import PROMPT, serve

TEXT, OTHER = "Ada found a red lamp at the market.", "Bruno sold seven apples"


@pytest.fixture(scope="module")
def server(small_run):
    served = serve(small_run, "--slots", 2, "--json", "--max-length", 3000)
    yield served
    assert served.end() == 0


def test_vectors_are_means_of_the_tokens(server):
    one = server.well("/v1/embeddings", {"input": TEXT})
    assert one["object"] == "list" and one["data"][0]["index"] == 0
    mean = numpy.array(one["data"][0]["embedding"])
    ids = server.well("/tokenize", {"content": TEXT})["tokens"] + [1]
    assert one["usage"]["prompt_tokens"] == len(ids)
    each = numpy.array(server.well("/embeddings", {"content": TEXT, "pooling": "none"})[0]["embedding"])
    assert each.shape == (len(ids), len(mean))
    numpy.testing.assert_allclose(each.mean(0), mean, atol=1e-5)
    # Companions and padding change nothing; ids are a text's; base64 holds the same numbers.
    several = server.well("/v1/embeddings", {"input": [OTHER, TEXT], "encoding_format": "base64"})["data"]
    bytes_ = base64.b64decode(several[1]["embedding"])
    assert struct.unpack(f"<{len(mean)}f", bytes_) == tuple(numpy.array(mean, numpy.float32))
    padded = server.well("/embeddings", {"input": [ids + [0, 0, 0]]})[0]["embedding"]
    numpy.testing.assert_array_equal(padded, mean)


def test_vectors_are_those_of_transformers(server, small_run):
    transformers = pytest.importorskip("transformers")
    import torch
    checkpoint = sorted((small_run / "checkpoints").iterdir())[-1]
    model = transformers.SwitchTransformersEncoderModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = server.well("/tokenize", {"content": TEXT})["tokens"] + [1]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    ours = numpy.array(server.well("/embeddings", {"input": TEXT, "pooling": "none"})[0]["embedding"])
    assert numpy.abs(ours - states).max() < 1e-3 * numpy.abs(states).max()


def test_routing_is_that_of_a_forward_pass(server, small_run, tmp_path):
    output = "<extra_id_0> the old bridge"
    answer = server.well("/routing", {"content": PROMPT, "output": output})
    encoder = server.well("/tokenize", {"content": PROMPT})["tokens"] + [1]
    target = server.well("/tokenize", {"content": output})["tokens"] + [1]
    save_file({"input_ids": numpy.array([encoder], numpy.int64), "decoder_input_ids": numpy.array([[0] + target[:-1]], numpy.int64)}, tmp_path / "in")
    done = switchyard("forward", "--model", small_run, "--inputs", tmp_path / "in", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = load_file(tmp_path / "out")
    assert [token["id"] for token in answer["encoder"]["tokens"]] == encoder
    assert [token["id"] for token in answer["decoder"]["tokens"]] == [0] + target[:-1]
    assert answer["encoder"]["tokens"][0]["piece"].startswith("\u2581")
    for stack in "encoder", "decoder":
        assert answer[stack]["layers"]
        for layer in answer[stack]["layers"]:
            assert layer["num_experts"] == 4 and layer["layer"].startswith(stack)
            assert all(0.25 <= gate <= 1 for gate in layer["gates"])
            assert [experts[0] for experts in layer["experts"]] == list(expected["expert_index." + layer["layer"]][0])
    assert "decoder" not in server.well("/routing", {"content": PROMPT})


def test_properties(server, small_run):
    properties = server.ask("GET", "/props")[2]
    assert properties["total_slots"] == 2 and properties["model_path"] == str(small_run) and properties["default_generation_settings"]["n_ctx"] == 3000
    assert properties["switchyard"]["encoder"]["sparse"] and properties["switchyard"]["encoder"]["sparse"][0]["num_experts"] == 4


def test_metrics_count_tokens_by_expert(server):
    before = server.metrics()
    answer = server.complete(max_tokens=9)
    after = server.metrics()
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    read, written = answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]
    assert grown["switchyard_prompt_tokens_total"] == read and grown["switchyard_generated_tokens_total"] == written
    layers = {name.split('"')[1] for name in after if name.startswith("switchyard_routed_tokens_total")}
    assert {layer.split(".")[0] for layer in layers} == {"encoder", "decoder"}
    for layer in layers:
        # Each step of the decoder reads one token: the start, then all but the last.
        expected = read if layer.startswith("encoder") else written
        chosen = sum(value for name, value in grown.items() if name.startswith(f'switchyard_expert_tokens_total{{layer="{layer}"'))
        assert grown[f'switchyard_routed_tokens_total{{layer="{layer}"}}'] == chosen == expected
        assert grown[f'switchyard_dropped_tokens_total{{layer="{layer}"}}'] == 0
    assert grown["switchyard_time_to_first_token_seconds_count"] == 1
    assert grown["switchyard_time_per_token_seconds_count"] == written - 1
    assert grown['switchyard_time_per_token_seconds_bucket{le="+Inf"}'] == written - 1
    assert grown['switchyard_responses_total{path="/v1/completions",status="200"}'] == 1


def test_the_log_is_one_line_a_request(server, small_run):
    server.ask("GET", "/nowhere%0A%1b[2J\"?a=b")
    server.complete(max_tokens=2)
    lines = [json.loads(line) for line in server.output().splitlines()]
    assert lines[0]["serving"] == str(small_run) and lines[0]["at"].endswith(str(server.port))
    last = lines[-1]
    assert (last["client"], last["method"], last["path"], last["status"]) == ("127.0.0.1", "POST", "/v1/completions", 200) and 0 < last["seconds"] < 60
    assert lines[-2]["path"] == '/nowhere\n\x1b[2J"' and lines[-2]["status"] == 404
    # Paths that do not exist are one path in the counts.
    assert not any("nowhere" in name for name in server.metrics())


def test_a_completion_has_a_longest_time(small_run):
    server = serve(small_run, "--max-length", 100000, "--timeout", 0.3)
    try:
        body = {"prompt": PROMPT, "max_tokens": 30000, "min_tokens": 29999}
        assert "longer than 0.3 s" in server.ask("POST", "/v1/completions", body)[2]["error"]["message"]
        assert "longer than 0.3 s" in server.ask("POST", "/v1/completions", {**body, "stream": True})[2]
        while server.metric("switchyard_requests_running") > 0:
            pass
    finally:
        assert server.end() == 0


@pytest.mark.parametrize("path, body, words", [
    ("/v1/embeddings", {}, "input is missing"), ("/v1/embeddings", {"input": 3}, "input"), ("/v1/embeddings", {"input": []}, "empty"),
    ("/v1/embeddings", {"input": TEXT, "pooling": "none"}, "/embeddings"), ("/embeddings", {"input": TEXT, "pooling": "max"}, "pooling"),
    ("/embeddings", {"input": [10**6]}, "vocabulary"), ("/embeddings", {"input": ["a b c"] * 300}, "at most 256"), ("/routing", {}, "content is missing"),
    ("/routing", {"content": TEXT, "outputs": "a"}, "output"), ("/routing", {"content": TEXT, "output": [10**6]}, "output"),
    ("/tokenize", {"content": [1]}, "content"), ("/tokenize", {"content": "a" * 200000}, "tokens"), ("/detokenize", {"tokens": [10**6]}, "vocabulary"),
    ("/detokenize", {"tokens": "a"}, "list of ids"),
], ids=range(14))
def test_bad_questions_are_refused_by_name(server, path, body, words):
    assert words in server.refusal(path, body)


def test_experts_in_bounded_memory_change_no_answer(server, small_run):
    """serve and eval; generate: test_large_models.py."""
    tensors = json.loads(switchyard("inspect", small_run, "--json").stdout)["tensors"]
    values = sum(numpy.prod(tensor["shape"]) for tensor in tensors if tensor["name"].startswith("encoder.block.1.") and ".expert_0." in tensor["name"])
    limit = int(3 * 4 * values)  # three experts in fp32
    bounded = serve(small_run, "--slots", 2, "--max-length", 3000, "--expert-memory", limit)
    for prompt in (PROMPT, TEXT, OTHER * 20):
        assert bounded.complete(prompt=prompt)["choices"] == server.complete(prompt=prompt)["choices"]
    assert 0 < bounded.metric("switchyard_experts_read_total") <= bounded.metric("switchyard_experts_wanted_total")
    assert bounded.metric("switchyard_expert_bytes_read_total") > limit >= bounded.metric("switchyard_expert_bytes") > 0
    assert bounded.end() == 0
    told = [json.loads(switchyard("eval", "--model", small_run, "--json", *options).stdout) for options in ((), ("--expert-memory", limit))]
    memory = told[1].pop("expert_memory")
    assert told[0] == told[1] and memory["limit"] == limit >= memory["peak_bytes"] and memory["bytes_read"] > limit
