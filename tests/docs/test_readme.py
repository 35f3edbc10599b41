"""README.md's commands, run in their order on a small text: every section but those that need a network, large files or much time."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import PROGRAM, SOURCE, checkout, run_block, sections, write_text

README = sections((SOURCE / "README.md").read_text())
SMALLER = {"--size 8000": "--size 200", '"switch-mini-8"': '"switch-tiny-4"', "steps = 2000": "steps = 12\neval_examples = 4",
           "batch_size = 8": "batch_size = 2"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = checkout(tmp_path_factory.mktemp("readme"))
    write_text(folder / "books/a.txt", 3000, 1)
    write_text(folder / "held_out.txt", 1500, 2)
    rows = [{"sentence": "a fine lamp" if n % 2 else "a poor coat", "label": n % 2, "premise": "p", "hypothesis": "h"} for n in range(6)]
    for task in ("glue_sst2", "superglue_cb"):
        (folder / f"DATA/{task}").mkdir(parents=True)
        for split in ("train", "dev"):
            (folder / f"DATA/{task}/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_block(README["Your own text"][1], folder, SMALLER)
    return folder


def test_own_text(desk):
    assert (desk / "runs/books/latest").read_text().strip() == "step-000012"
    assert "<svg" in (desk / "report.html").read_text()


def test_routers(desk):
    block = "\n".join(line for line in README["Other routers, and what experts learn"][0].splitlines() if "bench variants" not in line)
    said = run_block(block, desk, {"--html": "--max-examples 2 --html", "inspect runs/books": "inspect runs/top2"})
    assert "2 experts" in said or "top-2" in said, said
    assert (desk / "experts.html").exists()


def test_tasks(desk):
    run_block(README["Tasks"][0], desk, {"outputs.jsonl    #": "outputs.jsonl --max-tokens 2    #"})
    assert len((desk / "outputs.jsonl").read_text().splitlines()) == 6
    fewer = " --set data.decoder_length=16 --set train.steps=2 --set train.batch_size=2 --set train.eval_every=1"
    said = run_block(README["Tasks"][1], desk, {"data.folder=$PWD/DATA": "data.folder=$PWD/DATA" + fewer})
    assert "accuracy" in said


def test_plans(desk):
    run_block(README["Planning large models"][0], desk, {"8..2048": "8..16"})
    assert (desk / "layout.svg").read_text().startswith("<svg")


def test_distillation(desk):
    said = run_block(README["Small models from large ones"][0], desk, {" --set distill.baseline=runs/dense": " --set train.steps=2"})
    assert (desk / "runs/student/latest").exists(), said


LAUNCHERS = {"torchrun": ".venv/bin/torchrun", "mpirun": "mpirun", "srun": "srun"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers(desk, launcher):
    """Two ranks in place of four."""
    block = README["On several processes"][0].replace("\\\n", " ")
    line = next(line for line in block.splitlines() if line.startswith(LAUNCHERS[launcher] + " "))
    (desk / ".venv").exists() or (desk / ".venv").symlink_to(SOURCE / ".venv")
    if shutil.which(LAUNCHERS[launcher], path=f"{desk}:{os.environ['PATH']}") is None and not (desk / LAUNCHERS[launcher]).exists():
        pytest.skip(f"no {launcher} here")
    fewer = {"torchrun": {"-node 4": "-node 2", " --set parallel.expert=2": ""}, "mpirun": {"-n 4": "-n 2 --allow-run-as-root --oversubscribe", "expert=4": "expert=2"},
             "srun": {"--ntasks 4": "--ntasks 2"}}[launcher]
    run_block(line, desk, {**fewer, "run.toml": "run.toml --set train.batch_size=4 --set train.steps=4"})
    out = desk / re.search(r"--out (\S+)", line)[1]
    assert (out / "latest").read_text().strip() == "step-000004"
    parallel = re.search(r"\[parallel\]\n(.*?)(?:\n\n|\Z)", (out / "run.toml").read_text(), re.DOTALL)[1]
    assert "= 2" in parallel or "auto" in parallel, parallel


def background(line, folder):
    """A line of a block as a process, on a port that is free; gives it and the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = re.sub(r"--port \d+", "", line.split("#")[0]).strip() + f" --port {port}"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    process = subprocess.Popen(["bash", "-c", "exec env " + line], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
            return process, port
        except urllib.error.HTTPError:  # the key is missing, but somebody answers
            return process, port
        except OSError:
            assert process.poll() is None, line
            time.sleep(0.1)
    raise AssertionError(f"{line} does not answer")


def test_serving(desk):
    """Every server of the block starts; every request of the next block is answered by the first."""
    servers = [line for line in README["Serving"][0].splitlines() if " serve " in line or " watch " in line]
    assert len(servers) == 3
    for line in servers:
        process, port = background(line, desk)
        try:
            if line is servers[0]:
                requests = [request for request in README["Serving"][1].splitlines() if request.startswith("curl ")]
                assert len(requests) == 5
                for request in requests if shutil.which("curl") else []:
                    answer = run_block(request, desk, {"curl ": "curl --silent --fail --max-time 200 ", "127.0.0.1:8080": f"127.0.0.1:{port}"})
                    assert answer.rstrip().endswith("[DONE]") if "stream" in request else json.loads(answer), request
            if "SWITCHYARD_API_KEY" in line:
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", data=b"{}"), timeout=30)
                assert refused.value.code == 401
        finally:
            process.terminate()
            assert process.wait(timeout=120) == 0, line


def test_encoders(desk):
    """`embed` of the run in place of downloaded encoders."""
    (desk / "prompts.txt").write_text("Ada found a red lamp.\nBruno sold seven apples.\n")
    block = README["Encoders of text"][0]
    said = run_block(block, desk, {"t5-xxl-encoder-int8": "runs/books", "flan-t5-base-int8": "runs/books", "--compare flan-t5-base": "--compare runs/books"})
    assert "cosine" in said and (desk / "states.safetensors").exists()


def test_pictures(tmp_path):
    """Those of docs/ are what their commands draw."""
    command = re.search(r"`build/release/(switchyard plan .*?) --picture docs/mesh.svg`", (SOURCE / "README.md").read_text())[1].split()
    subprocess.run([PROGRAM, *command[1:], "--picture", tmp_path / "mesh.svg"], check=True, capture_output=True)
    assert (tmp_path / "mesh.svg").read_text() == (SOURCE / "docs/mesh.svg").read_text()
    drawn = subprocess.run([sys.executable, SOURCE / "scripts/draw_sparse_layer.py"], check=True, capture_output=True, text=True).stdout
    assert drawn == (SOURCE / "docs/sparse_layer.svg").read_text()


def test_tree_names_every_folder():
    listed = re.findall(r"^src/(\w+) ", (SOURCE / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (SOURCE / "src").iterdir() if path.is_dir())
