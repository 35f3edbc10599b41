"""`switchyard serve` under load: one answer whatever runs beside it, nothing that grows, and faults that harm nobody."""

import concurrent.futures
import json
import os
import subprocess
import sys
import threading

import pytest

from conftest import PROGRAM, SOURCE, switchyard
from served import PROMPT, serve

EQUAL = 1000  # requests of one prompt, and as many others
REQUESTS = int(os.environ.get("SWITCHYARD_REQUESTS", 10000))  # after which nothing has grown


def status(server, key):
    return next(int(line.split()[1]) for line in open(f"/proc/{server.process.pid}/status") if line.startswith(key + ":"))


def other(number):
    """A request of another prompt than PROMPT, of any length and search."""
    keys = {"prompt": f"Bruno painted {number} <extra_id_0>" * (1 + number % 5), "max_tokens": 1 + number % 12, "temperature": number % 3, "seed": number}
    return keys | ({"beams": 2, "temperature": 0} if number % 7 == 0 else {})


@pytest.mark.parametrize("search", [{}, {"temperature": 0.9, "seed": 5}], ids=["greedy", "sampled"])
def test_a_thousand_equal_requests_among_a_thousand_others(small_run, search):
    """All of them at the same moment: a thread and a connection each."""
    done = switchyard("generate", "--model", small_run, "--prompt", PROMPT, "--max-tokens", 8, "--json", "--dtype", "fp32",
                      *(word for key, value in search.items() for word in (f"--{key}", value)))
    expected = json.loads(done.stdout)["text"]
    server = serve(small_run, "--slots", 8, "--queue", 2 * EQUAL, "--max-length", 400)
    together = threading.Barrier(2 * EQUAL)

    def answer(number):
        keys = other(number) if number % 2 else {"max_tokens": 8, **search}
        together.wait(60)
        return server.complete(**keys)["choices"][0]["text"]

    try:
        with concurrent.futures.ThreadPoolExecutor(2 * EQUAL) as clients:
            answers = list(clients.map(answer, range(2 * EQUAL)))
        assert set(answers[::2]) == {expected} and len(set(answers[1::2])) > EQUAL / 10
    finally:
        assert server.end() == 0


def test_ten_thousand_requests_leave_nothing_behind(small_run):
    server = serve(small_run, "--slots", 8, "--queue", 64, "--max-length", 400)
    alone = server.complete(max_tokens=8)["choices"][0]["text"]

    def answer(number):
        text = server.complete(**(other(number) if number % 2 else {"max_tokens": 8}))["choices"][0]["text"]
        return number % 2 or text == alone

    try:
        with concurrent.futures.ThreadPoolExecutor(32) as clients:
            assert all(clients.map(answer, range(REQUESTS // 5)))
            memory, threads = status(server, "VmRSS"), status(server, "Threads")
            assert all(clients.map(answer, range(REQUESTS // 5, REQUESTS)))
        grown = status(server, "VmRSS") - memory
        print(f"{REQUESTS} requests: {threads} threads, {memory} kB, grown by {grown} kB")
        assert status(server, "Threads") == threads and grown < 8000  # kB
        assert server.metric("switchyard_requests_running") == server.metric("switchyard_requests_queued") == 0
    finally:
        assert server.end() == 0


def test_faults_harm_nobody(small_run):
    done = subprocess.run([sys.executable, SOURCE / "bench/serve_faults.py", "--program", PROGRAM, "--model", small_run, "--seconds", "5"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["faults"]
    assert len(counts) == 8 and all(count > 0 for count in counts.values())
