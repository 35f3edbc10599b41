"""Model.generate and .stream: what `switchyard generate` prints, for the same requests."""

import _thread
import json
import threading
import time

import pytest
from conftest import program

import switchyard
from switchyard.native import _native

PROMPTS = ["Ada found <extra_id_0> in the harbour of <extra_id_1>.", "Bruno sold <extra_id_0> behind the mill.", "Carla forgot"]


@pytest.fixture(scope="module")
def model(run):
    return switchyard.Model.load(run)


def printed(model, *arguments, prompts=PROMPTS):
    lines = program("generate", "--model", model.folder, "--json", *arguments, input="".join(f"{each}\n" for each in prompts))
    return [json.loads(line) for line in lines.splitlines()]


def as_printed(output):
    result = {"prompt": output.prompt, "text": output.text, "ids": output.ids, "score": output.score}
    if output.filled is not None:
        result["filled"] = output.filled
    if output.others:
        result["others"] = [{key: value for key, value in as_printed(other).items() if key != "prompt"} for other in output.others]
    return result


@pytest.mark.parametrize("search, options", [
    (dict(max_tokens=12), ["--max-tokens", 12]),
    (dict(max_tokens=12, temperature=0.9, seed=3, top_p=0.9), ["--max-tokens", 12, "--temperature", 0.9, "--seed", 3, "--top-p", 0.9]),
    (dict(max_tokens=12, beams=3, n=2), ["--max-tokens", 12, "--beams", 3, "--results", 2]),
    (dict(max_tokens=12, min_tokens=4, repetition_penalty=1.5, stop=["a"]),
     ["--max-tokens", 12, "--min-tokens", 4, "--repetition-penalty", 1.5, "--stop", "a"]),
])
def test_generate_is_the_programs(model, search, options):
    expected = printed(model, *options)
    outputs = model.generate(PROMPTS, **search)
    assert [as_printed(output) for output in outputs] == expected
    assert [output.ids for output in model.generate(PROMPTS, slots=1, **search)] == [each["ids"] for each in expected]


def test_one_prompt_gives_one_output(model):
    output = model.generate(PROMPTS[0], max_tokens=5)
    assert output == model.generate(PROMPTS, max_tokens=5)[0]
    ids = [*model.vocabulary.encode(PROMPTS[0]), 1]
    assert model.generate(ids, max_tokens=5).ids == output.ids == model.generate([ids], max_tokens=5)[0].ids
    assert model.generate([]) == []


@pytest.mark.parametrize("search", [dict(), dict(temperature=1.0, seed=5), dict(stop="e"), dict(decoder_prompt="<extra_id_0> the")])
def test_stream_adds_up_to_the_output(model, search):
    stream = model.stream(PROMPTS[0], max_tokens=24, min_tokens=20, **search)
    pieces = list(stream)
    expected = model.generate(PROMPTS[0], max_tokens=24, min_tokens=20, **search)
    assert "".join(pieces) == expected.text and stream.output == expected
    assert len(pieces) > 5 or "stop" in search
    assert list(stream) == []


@pytest.mark.parametrize("search, message", [
    (dict(temprature=1.0), 'request: unknown key "temprature" \\(did you mean "temperature"\\?\\)'),
    (dict(max_tokens=0), "max_tokens: 0; expected 1 to"),
    (dict(temperature=-1.0), "temperature"),
    (dict(temperature="hot"), "temperature: expected a number"),
    (dict(beams=2, temperature=0.5), "beam"),
    (dict(stop=[object()]), "prompts?.*stop|stop: expected"),
    (dict(seed=1 << 70), "beyond 64 bits"),
    (dict(slots=0), "slots = 0: expected at least 1"),
])
def test_generate_refuses(model, search, message):
    with pytest.raises(ValueError, match=message):
        model.generate(PROMPTS[0], **search)


def test_a_refused_prompt_is_named(model):
    with pytest.raises(ValueError, match="^prompt 2: prompt: "):
        model.generate([PROMPTS[0], []])
    with pytest.raises(ValueError, match="prompt 2: .*outside the model's vocabulary"):
        model.generate([PROMPTS[0], [5, 100000]])
    with pytest.raises(ValueError, match="stream: with beams"):
        model.stream(PROMPTS[0], beams=2)


def test_keys_of_a_request_are_documented():
    for key in _native.request_keys():
        assert key == "prompt" or key in switchyard.Model.generate.__doc__, key


def test_interrupt_ends_a_generation_at_once(model):
    """What Ctrl-C does: the signal is raised while the library computes without Python's lock."""
    prompts = PROMPTS * 200
    threading.Timer(0.5, _thread.interrupt_main).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        model.generate(prompts, max_tokens=500, min_tokens=499, slots=4)
    assert time.monotonic() - start < 5
    assert model.generate(PROMPTS[0], max_tokens=5).ids  # and the model goes on


def test_other_threads_run_while_the_library_computes(model):
    counted, done = 0, threading.Event()

    def generate():
        model.generate(PROMPTS * 40, max_tokens=60, min_tokens=59)
        done.set()

    threading.Thread(target=generate).start()
    while not done.wait(0.001):
        counted += 1
    assert counted > 20
