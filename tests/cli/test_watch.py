"""`switchyard watch`: a run in training over HTTP, and as a page in headless Chromium."""

import json
import os
import signal
import subprocess
import time

import pytest

from browser import Browser, needs_browser
from conftest import PROGRAM, refused
from served import Served


@pytest.fixture
def training(workshop, tmp_path):
    """A run that trains for as long as the test looks."""
    out = tmp_path / "run"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    process = subprocess.Popen([PROGRAM, "train", str(workshop / "tiny.toml"), "--out", str(out), "--quiet", "--set", "train.steps=100000", "--set",
                                "train.save_every=40", "--set", "train.eval_every=20"], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while not (out / "metrics.jsonl").exists() or not list((out / "checkpoints").glob("step-*")):
        assert process.poll() is None and time.time() < deadline, process.stderr.read()
        time.sleep(0.05)
    yield out
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def state(server):
    return server.ask("GET", "/state")[2]


def until(look, wanted, seconds=40):
    deadline = time.time() + seconds
    while not wanted(value := look()):
        assert time.time() < deadline, value
        time.sleep(0.2)
    return value


def test_a_run_is_followed_until_it_is_stopped(training):
    server = Served(["watch", training])
    try:
        first = until(lambda: state(server), lambda got: got["runs"])
        run, = first["runs"]
        assert run["name"] == "run" and run["state"] == "training" and run["steps"] == 100000 and run["seconds_left"] > 0
        assert {layer["name"].split(".")[0] for layer in run["layers"]} == {"encoder", "decoder"}
        assert all(sum(layer["load"]) == pytest.approx(1, abs=1e-6) for layer in run["layers"])
        until(lambda: state(server), lambda got: got["runs"][0]["step"] > run["step"] and got["version"] != first["version"])
        # The newest checkpoint's samples.
        until(lambda: server.ask("GET", "/sections")[2], lambda html: "Blanks filled in" in html and "<dt>step-" in html and "<svg" in html)
        holder = int(open(training / ".lock").read().split()[1])
        os.kill(holder, signal.SIGTERM)
        assert until(lambda: state(server), lambda got: got["runs"][0]["state"] != "training")["runs"][0]["state"] == "stopped"
    finally:
        assert server.end() == 0


def test_a_finished_run_and_one_without_metrics(small_run, tmp_path):
    server = Served(["watch", small_run, "--samples", 0])
    try:
        run, = state(server)["runs"]
        assert (run["state"], run["step"], run["steps"], run["seconds_left"]) == ("finished", 60, 60, 0)
        lines = [json.loads(line) for line in open(small_run / "metrics.jsonl")]
        assert run["eval_loss"] == pytest.approx([line["eval_loss"] for line in lines if "eval_loss" in line][-1])
        assert "Blanks filled in" not in server.ask("GET", "/sections")[2]
    finally:
        assert server.end() == 0
    server = Served(["watch", tmp_path])
    try:
        status, _, answer = server.ask("GET", "/state")
        assert status == 400 and "metrics.jsonl" in answer["error"]["message"]
    finally:
        assert server.end() == 0
    assert "no such folder" in refused("watch", tmp_path / "nowhere")


@needs_browser
def test_the_page_grows(training, tmp_path):
    server = Served(["watch", training, "--samples", 1])
    page = Browser()
    try:
        page.open(f"http://127.0.0.1:{server.port}/")
        page.wait("document.querySelectorAll('#sections svg.chart').length > 3")
        assert page.value("document.querySelectorAll('#loads .bars').length") == len(state(server)["runs"][0]["layers"])
        before = page.value("document.querySelector('progress').value")
        page.wait(f"document.querySelector('progress').value > {before}")
        assert "run: training" in page.value("document.getElementById('runs').textContent")
        assert "left" in page.value("document.getElementById('runs').textContent")
        assert page.wait("document.querySelectorAll('#sections .sample').length") == 1
        # A router that has collapsed is told in words, without a number of tokens that is not known.
        alarm = page.value("alarmsOf([{name: 'encoder.1', tokens: 1, dropped: 0.2, load: [0.97, 0.01, 0.01, 0.01], shares: true}])")
        assert [each["kind"] for each in alarm] == ["drops", "collapse"] and "97\u202f% of the tokens go to expert 0 of 4" in alarm[1]["words"]
        page.screenshot(tmp_path / "watch.png")
        assert (tmp_path / "watch.png").stat().st_size > 20000
        assert not page.complaints
        assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "data:")) for url in page.requests)
    finally:
        page.close()
        assert server.end() == 0
