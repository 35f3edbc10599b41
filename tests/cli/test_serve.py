"""`switchyard serve` over loopback: answers, streams, companions, clients that behave badly, and its end."""

import concurrent.futures
import http.client
import json
import signal
import time

import pytest

from conftest import refused, switchyard
from served import PROMPT, events, serve


@pytest.fixture(scope="module")
def server(small_run):
    served = serve(small_run, "--slots", 4, "--queue", 40, "--max-length", 4000)
    yield served
    assert served.end() == 0


def generated(model, *options):
    done = switchyard("generate", "--model", model, "--prompt", PROMPT, "--max-tokens", 12, "--json", "--dtype", "fp32", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_answers_as_generate_does(server, small_run):
    answer = server.complete()
    choice = answer["choices"][0]
    expected = generated(small_run)
    assert choice["text"] == expected["text"] and answer["object"] == "text_completion" and answer["model"] == str(small_run)
    assert choice["finish_reason"] == ("length" if len(expected["ids"]) == 12 else "stop")
    assert answer["usage"]["completion_tokens"] == len(expected["ids"])
    assert server.complete(temperature=0.8, seed=3)["choices"][0]["text"] == generated(small_run, "--temperature", 0.8, "--seed", 3)["text"]
    assert server.complete(beams=3)["choices"][0]["text"] == generated(small_run, "--beams", 3)["text"]
    several = server.complete(prompt=[PROMPT, "Carla sold"], n=2, temperature=1.0, seed=1)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2, 3]


def test_streams_what_it_would_answer(server):
    for keys in {}, {"n": 2, "temperature": 1.0, "seed": 5}, {"beams": 2}:
        whole = server.complete(**keys)
        status, headers, text = server.ask("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 12, "stream": True, **keys})
        assert status == 200 and headers["Content-Type"] == "text/event-stream"
        texts, reasons = {}, {}
        for event in events(text):
            choice = event["choices"][0]
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            reasons[choice["index"]] = choice["finish_reason"]
        assert texts == {choice["index"]: choice["text"] for choice in whole["choices"]}
        assert reasons == {choice["index"]: choice["finish_reason"] for choice in whole["choices"]}


def test_one_prompt_has_one_answer_among_others(server):
    prompts = [PROMPT if n % 2 else f"Bruno painted {n} <extra_id_0>" for n in range(32)]
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda prompt: server.complete(prompt=prompt)["choices"][0]["text"], prompts))
    assert len(set(answers[1::2])) == 1


def test_tokens_models_and_health(server, small_run):
    ids = server.ask("POST", "/tokenize", {"content": "Ada found a red lamp"})[2]["tokens"]
    assert ids and server.ask("POST", "/detokenize", {"tokens": ids})[2]["content"] == "Ada found a red lamp"
    assert server.ask("GET", "/health")[2] == {"status": "ok"}
    assert server.ask("GET", "/v1/models")[2]["data"][0]["id"] == str(small_run)
    before = server.metric("switchyard_generated_tokens_total")
    server.complete()
    assert server.metric("switchyard_generated_tokens_total") > before
    assert server.metric("switchyard_slots") == 4


@pytest.mark.parametrize("body, words", [
    ("{", "JSON"), ("[1]", "expected an object"), ({}, "prompt is missing"), ({"prompt": 3}, "prompt"), ({"prompt": "a", "max_token": 3}, "max_tokens"),
    ({"prompt": "a", "temperature": "hot"}, "temperature"), ({"prompt": "a", "max_tokens": 5000}, "max_tokens"), ({"prompt": "a", "n": 9}, "n"),
    ({"prompt": ["a", "b"], "stream": True}, "one prompt"), ({"prompt": [-1]}, "no token id"), ("[" * 100000, "deeper"), (b"\xff\xfe{", "JSON"),
    ({"prompt": [10**7]}, "vocabulary"),
], ids=range(13))
def test_bad_bodies_are_refused_by_name(server, body, words):
    status, _, answer = server.ask("POST", "/v1/completions", body)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (400, 400, "invalid_request_error")
    assert words in answer["error"]["message"]


def test_other_refusals(server):
    assert server.ask("POST", "/v1/completion", {})[0] == 404
    assert server.ask("GET", "/v1/completions")[0] == 404
    status, _, answer = server.ask("POST", "/v1/completions", json.dumps({"prompt": "a" * (2 << 20)}))
    assert status == 413 and answer["error"]["code"] == 413


def test_clients_that_go_away_free_their_rows(server):
    before = server.metric("switchyard_requests_cancelled_total")
    body = json.dumps({"prompt": PROMPT, "max_tokens": 4000, "min_tokens": 3999, "stream": True})
    connections = [server.raw(f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()) for _ in range(4)]
    assert all(connection.recv(100) for connection in connections)
    for connection in connections:
        connection.close()
    deadline = time.time() + 30
    while server.metric("switchyard_requests_cancelled_total") < before + 4 or server.metric("switchyard_requests_running") > 0:
        assert time.time() < deadline
        time.sleep(0.05)
    server.complete()


def test_half_sent_and_malformed_requests_harm_nobody(server):
    expected = server.complete()["choices"][0]["text"]
    held = [server.raw(data) for data in (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"prompt\"", b"GET /health HTT", b"\x00\xff" * 500,
                                           b"GET / HTTP/1.1\r\nX: " + b"a" * 100000 + b"\r\n\r\n", b"BREW /v1/completions HTTP/1.1\r\n\r\n")]
    assert server.complete()["choices"][0]["text"] == expected
    for connection in held:
        connection.close()
    assert server.complete()["choices"][0]["text"] == expected


def test_a_full_queue_says_when_to_come_again(small_run):
    server = serve(small_run, "--slots", 1, "--queue", 2, "--max-length", 4000, "--api-key", "secret")
    key = {"Authorization": "Bearer secret"}
    try:
        assert server.ask("GET", "/v1/models")[0] == 401 and server.ask("GET", "/v1/models", headers=key)[0] == 200
        assert server.ask("GET", "/v1/models", headers={"Authorization": "Bearer secrets"})[0] == 401
        long = {"prompt": PROMPT, "max_tokens": 3000, "min_tokens": 2999}
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            ended = [answer.result() for answer in [clients.submit(server.ask, "POST", "/v1/completions", long, key) for _ in range(8)]]
        statuses = [status for status, _, _ in ended]
        assert statuses.count(429) >= 4 and statuses.count(200) >= 1 and set(statuses) == {200, 429}
        assert all(headers["Retry-After"] == "1" for status, headers, _ in ended if status == 429)
    finally:
        assert server.end() == 0


def test_more_connections_than_threads_are_refused(small_run):
    assert "at most 4096 together" in refused("serve", "--model", small_run, "--queue", 100000)
    assert "expected at least 1 of each" in refused("serve", "--model", small_run, "--slots", 0)


def test_sigterm_finishes_what_runs(small_run):
    """Whole answers and streams; what comes meanwhile is refused."""
    server = serve(small_run, "--max-length", 4000)
    body = {"prompt": PROMPT, "max_tokens": 1500, "min_tokens": 1499}
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        whole, streamed = [clients.submit(server.ask, "POST", "/v1/completions", {**body, "stream": stream}) for stream in (False, True)]
        while server.metric("switchyard_requests_running") < 2:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while "finishing what runs" not in server.messages():
            time.sleep(0.01)
        time.sleep(0.1)
        assert "about to end" in server.refusal("/v1/completions", body, 503)
        status, _, answer = whole.result()
        assert status == 200 and answer["usage"]["completion_tokens"] >= 1499
        status, _, text = streamed.result()
        assert status == 200 and len(events(text)[-1]["choices"][0]["tokens"]) >= 1499
    assert server.process.wait(30) == 0
    with pytest.raises(OSError):
        server.ask("GET", "/health")


def test_sigterm_cuts_no_answer_off(small_run):
    """Many clients at the moment when it comes: an answer that begins is whole, and what is refused is so by words or by the connection."""
    server = serve(small_run, "--slots", 4)
    expected, cut, ended = server.complete()["choices"][0]["text"], [], []

    def ask_until_the_end(_):
        while True:
            try:
                status, _, answer = server.ask("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 12})
                if status != 200:
                    assert status == 503 and "about to end" in answer["error"]["message"], answer
                elif answer["choices"][0]["text"] != expected:
                    cut.append(answer)
            except http.client.RemoteDisconnected:
                pass  # the connection, before a word of an answer
            except http.client.HTTPException as error:
                cut.append(repr(error))
            except ConnectionRefusedError:
                return ended.append(1)
            except OSError:
                pass

    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        running = [clients.submit(ask_until_the_end, n) for n in range(16)]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        for client in running:
            client.result(60)
    assert server.process.wait(60) == 0 and len(ended) == 16 and not cut
