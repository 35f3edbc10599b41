"""README.md's commands, run in their order on a small text: every section but those that need a network, a launcher or much time."""

import json
import re
import subprocess
import sys

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
        (folder / f"DATA/{task}/dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
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


def test_plans(desk):
    run_block(README["Planning large models"][0], desk, {"8..2048": "8..16"})
    assert (desk / "layout.svg").read_text().startswith("<svg")


def test_distillation(desk):
    said = run_block(README["Small models from large ones"][0], desk, {" --set distill.baseline=runs/dense": " --set train.steps=2"})
    assert (desk / "runs/student/latest").exists(), said


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
