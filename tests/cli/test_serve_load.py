"""`switchyard serve` under load: one answer whatever runs beside it, nothing that grows, and faults that harm nobody."""

import concurrent.futures
import json
import subprocess
import sys

import pytest

from conftest import PROGRAM, SOURCE
from served import PROMPT, serve

REQUESTS = 1000  # of one prompt, and as many others


@pytest.fixture(scope="module")
def server(small_run):
    served = serve(small_run, "--slots", 8, "--queue", 64, "--max-length", 400)
    yield served
    assert served.end() == 0


def status(server, key):
    return next(int(line.split()[1]) for line in open(f"/proc/{server.process.pid}/status") if line.startswith(key + ":"))


def test_a_thousand_equal_requests_among_a_thousand_others(server):
    alone = server.complete(max_tokens=8)["choices"][0]["text"]
    drawn = server.complete(max_tokens=8, temperature=0.9, seed=5)["choices"][0]["text"]
    jobs = []
    for n in range(REQUESTS):
        jobs.append(({"max_tokens": 8}, alone) if n % 2 else ({"max_tokens": 8, "temperature": 0.9, "seed": 5}, drawn))
        other = {"prompt": f"Bruno painted {n} <extra_id_0>" * (1 + n % 5), "max_tokens": 1 + n % 12, "temperature": n % 3, "seed": n}
        jobs.append((other | ({"beams": 2, "temperature": 0} if n % 7 == 0 else {}), None))

    def answer(job):
        keys, expected = job
        text = server.complete(**keys)["choices"][0]["text"]
        return expected is None or text == expected

    with concurrent.futures.ThreadPoolExecutor(32) as clients:
        assert all(clients.map(answer, jobs[:400]))
        memory, threads = status(server, "VmRSS"), status(server, "Threads")
        assert all(clients.map(answer, jobs[400:]))
    assert status(server, "Threads") <= threads and status(server, "VmRSS") < memory + 30000  # kB
    assert server.metric("switchyard_requests_running") == server.metric("switchyard_requests_queued") == 0


def test_faults_harm_nobody(small_run):
    done = subprocess.run([sys.executable, SOURCE / "bench/serve_faults.py", "--program", PROGRAM, "--model", small_run, "--seconds", "5"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["faults"]
    assert len(counts) == 8 and all(count > 0 for count in counts.values())
