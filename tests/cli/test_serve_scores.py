"""`logprobs` and `echo` of /v1/completions: scores by token, as clients take them that measure models by likelihood."""

import math

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from conftest import switchyard
from served import PROMPT, serve

CONTEXT, CONTINUATION = "Ada found the old bridge", "at the market of barobaro."


@pytest.fixture(scope="module")
def server(small_run):
    served = serve(small_run, "--slots", 4, "--max-length", 200)
    yield served
    assert served.end() == 0


@pytest.fixture(scope="module")
def tokens(server):
    return lambda text: server.well("/tokenize", {"content": text})["tokens"]


def log_probabilities(model, folder, encoder, target):
    """log softmax of every position [length, vocabulary], by another command's pass over the whole target."""
    labels = numpy.array([target], numpy.int64)
    shifted = numpy.concatenate([numpy.zeros((1, 1), numpy.int64), labels[:, :-1]], 1)
    save_file({"input_ids": numpy.array([encoder], numpy.int64), "decoder_input_ids": shifted}, folder / "in.safetensors")
    done = switchyard("forward", "--model", model, "--inputs", folder / "in.safetensors", "--output", folder / "out.safetensors")
    assert done.returncode == 0, done.stderr
    logits = load_file(folder / "out.safetensors")["logits"][0].astype(numpy.float64)
    return logits - numpy.log(numpy.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)


def test_a_given_continuation_is_scored(server, small_run, tokens, tmp_path):
    answer = server.complete(prompt=CONTEXT, decoder_prompt=CONTINUATION, echo=True, logprobs=3, max_tokens=0)
    choice = answer["choices"][0]
    scores = choice["logprobs"]
    target = tokens(CONTINUATION)
    expected = log_probabilities(small_run, tmp_path, tokens(CONTEXT) + [1], target)
    assert choice["text"] == CONTINUATION and choice["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 0
    assert "".join(scores["tokens"]).strip() == CONTINUATION
    numpy.testing.assert_allclose(scores["token_logprobs"], expected[range(len(target)), target], atol=1e-4)
    for place, likeliest in enumerate(scores["top_logprobs"]):
        numpy.testing.assert_allclose(sorted(likeliest.values()), numpy.sort(expected[place])[-3:], atol=1e-4)
    for token, offset in zip(scores["tokens"][1:], scores["text_offset"][1:]):
        assert choice["text"][offset:].startswith(token)


def test_generated_tokens_have_scores(server):
    plain = server.complete()["choices"][0]
    scored = server.complete(logprobs=2)["choices"][0]
    assert plain["logprobs"] is None and scored["text"] == plain["text"]
    scores = scored["logprobs"]
    assert len(scores["tokens"]) == len(scored["tokens"]) == len(scores["token_logprobs"])
    # Greedy: each token is the likeliest in its place.
    assert all(math.isclose(value, max(likeliest.values()), abs_tol=1e-4)
               for value, likeliest in zip(scores["token_logprobs"], scores["top_logprobs"]))
    beginning = server.complete(decoder_prompt="<extra_id_0> the", echo=True)["choices"][0]["text"]
    rest = server.complete(decoder_prompt="<extra_id_0> the")["choices"][0]["text"]
    assert beginning == "<extra_id_0> the" + rest


# What lm-evaluation-harness' local-completions sends and how it reads the answer: a list of ids, the context's number
# of them, one token generated and left aside.
def likelihood(server, context, continuation):
    answer = server.well("/v1/completions", {"model": "m", "prompt": [context + continuation], "temperature": 0, "max_tokens": 1, "logprobs": 1,
                                             "seed": 1234, "echo": True})
    scores = answer["choices"][0]["logprobs"]
    behind = slice(len(context), -1)
    values, likeliest = scores["token_logprobs"][behind], scores["top_logprobs"][behind]
    assert len(values) == len(continuation)
    return sum(values), all(value == max(others.values()) for value, others in zip(values, likeliest))


def test_one_sequence_is_split_at_its_eos(server, small_run, tokens, tmp_path):
    context, continuation = tokens(CONTEXT) + [1], tokens(CONTINUATION)
    expected = log_probabilities(small_run, tmp_path, context, continuation)
    value, is_greedy = likelihood(server, context, continuation)
    assert value == pytest.approx(expected[range(len(continuation)), continuation].sum(), abs=1e-3) and not is_greedy
    greedy = server.complete(prompt=CONTEXT, max_tokens=6)["choices"][0]["tokens"]
    assert likelihood(server, context, greedy)[1]


def test_a_sequence_without_eos_is_the_decoders(server, small_run, tokens, tmp_path):
    ids = tokens(CONTEXT)
    expected = log_probabilities(small_run, tmp_path, [1], ids)
    for prompt in CONTEXT, ids:
        choice = server.complete(prompt=prompt, echo=True, logprobs=0, max_tokens=0)["choices"][0]
        numpy.testing.assert_allclose(choice["logprobs"]["token_logprobs"], expected[range(len(ids)), ids], atol=1e-4)
        assert choice["text"] == CONTEXT


@pytest.mark.parametrize("keys, words", [
    ({"logprobs": 21}, "logprobs: 21; expected 0 to 20"), ({"logprobs": "many"}, "logprobs"), ({"echo": 1}, "echo"), ({"max_tokens": 0}, "needs echo"),
    ({"logprobs": 1, "stream": True}, "leave out stream or logprobs"), ({"max_tokens": 0, "echo": True}, "decoder_prompt"),
    ({"prompt": [5] * 300, "echo": True, "logprobs": 1}, "at most 200"),
], ids=range(7))
def test_what_cannot_be_scored_is_refused(server, keys, words):
    assert words in server.refusal("/v1/completions", {"prompt": PROMPT, **keys})
