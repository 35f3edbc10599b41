"""examples/python_tour.py runs from end to end, and what README.md shows of Python is true."""

import re
import subprocess
import sys

from conftest import SOURCE


def test_tour(workshop, tmp_path):
    done = subprocess.run([sys.executable, SOURCE / "examples/python_tour.py", workshop / "train.txt", "--out", tmp_path, "--steps", "30",
                           "--preset", "switch-tiny-4", "--pieces", "200", "--sentence", "Ada found <extra_id_0> in the <extra_id_1>."],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"held-out loss ([\d.]+)", done.stdout)]
    assert len(losses) == 3 and losses[-1] < losses[0]
    for expected in ("300 ids", "on 8 H200", "encoder.1: ▁", "log-probability -", "likeness "):
        assert expected in done.stdout, done.stdout
    assert re.search(r"^Ada found .*in the ", done.stdout, re.MULTILINE)


def test_readme(run, workshop, tmp_path):
    """The README's lines, with this run in place of its own."""
    readme = (SOURCE / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    assert "switchyard.train" in code and "generate" in code
    code = code.replace('"runs/books"', repr(str(run))).replace('"run.toml"', repr(str(workshop / "tiny.toml")))
    code = code.replace('"runs/python"', repr(str(tmp_path / "run")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 13
