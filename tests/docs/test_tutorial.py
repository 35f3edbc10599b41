"""docs/tutorial.md, block by block, with fewer steps and a smaller shape."""

import json
import re
import shutil
import socket

import pytest
from conftest import SOURCE, checkout, run_block, sections, write_text

TUTORIAL = sections((SOURCE / "docs/tutorial.md").read_text())
SMALLER = {
    "1. A vocabulary": [{"--size 8000": "--size 200"}],
    "2. Pre-training": [{"switch-nano-8": "switch-tiny-4", "encoder_length = 256": "encoder_length = 48", "steps = 3000": "steps = 20\neval_examples = 8",
                         "batch_size = 32": "batch_size = 4"}, {"--html": "--max-examples 4 --html"}],
    "3. A task of your own": [{}],
    "4. Fine-tuning": [{"steps = 400": "steps = 4", "batch_size = 32": "batch_size = 4", "eval_every = 50": "eval_every = 2"}],
    "5. A dense model that learned from it": [{}],
    "6. Serving": [{}],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Outputs of all blocks by section."""
    folder = checkout(tmp_path_factory.mktemp("tutorial"))
    write_text(folder / "books/a.txt", 3000, 1)
    write_text(folder / "held_out.txt", 1500, 2)
    assert list(TUTORIAL) == list(SMALLER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        SMALLER["6. Serving"] = [{"8080": str(free.getsockname()[1])}]
    if shutil.which("curl") is None:
        del TUTORIAL["6. Serving"]
    outputs = {title: [run_block(block, folder, smaller) for block, smaller in zip(blocks, SMALLER[title], strict=True)] for title, blocks in TUTORIAL.items()}
    return outputs, folder


def test_pre_training(said):
    outputs, folder = said
    assert len(outputs["1. A vocabulary"][0].split()) > 5
    assert "[optimizer]" in (folder / "resolved.toml").read_text()
    assert json.loads(outputs["2. Pre-training"][1].splitlines()[0])["step"] == 20
    assert "<svg" in (folder / "report.html").read_text() and (folder / "experts.html").exists()


def test_fine_tuning(said):
    outputs, folder = said
    assert re.search(r"accuracy\D+\d", outputs["4. Fine-tuning"][0]), outputs["4. Fine-tuning"]
    lines = [json.loads(line) for line in (folder / "runs/reviews/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_reviews_accuracy" in line][-1] == 4


def test_student_is_dense(said):
    outputs, folder = said
    config = json.loads(next((folder / "runs/student/checkpoints").glob("*/config.json")).read_text())
    assert config["model_type"] == "t5" and "num_experts" not in config


def test_serving(said):
    outputs, folder = said
    if "6. Serving" not in outputs:
        pytest.skip("no curl here")
    assert json.loads((folder / "answer.json").read_text())["choices"]
