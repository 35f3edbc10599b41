"""Run files of configs/: what they come to is stored, and those of the paper are the paper's models on clusters that hold them."""

import json
import re
import subprocess
import sys

import pytest
from conftest import PROGRAM, SOURCE

# Parameters in billions and FLOPs a sequence in 1e9: Switch table 9 (Switch-Base's parameters: table 8). Not printed, but worked out by hand: the FLOPs
# of two experts a token, and of Switch-C's released 30 heads.
PAPER = {
    "t5_base": (0.2, 124), "t5_large": (0.7, 425), "t5_xxl": (11, 6300), "moe_base": (7.4, 160), "switch_base": (7.4, 124),
    "switch_large": (26, 425), "switch_xxl": (395, 6300), "switch_c": (1571, 869),
}


def test_resolved_texts_are_those_stored():
    done = subprocess.run([sys.executable, SOURCE / "scripts/resolved_runs.py", "--program", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_moved_default_is_seen(tmp_path):
    moved = tmp_path / "switchyard"
    moved.write_text(f'#!/bin/sh\n"{PROGRAM}" "$@" | sed "s/^z_loss = .*/z_loss = 0.5/"\n')
    moved.chmod(0o755)
    done = subprocess.run([sys.executable, SOURCE / "scripts/resolved_runs.py", "--program", moved], capture_output=True, text=True)
    assert done.returncode != 0 and "+train.z_loss = 0.5" in done.stdout


def test_every_model_of_table_9_has_a_file():
    assert {path.stem for path in (SOURCE / "configs/paper").glob("*.toml")} == set(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_paper(name):
    path = SOURCE / f"configs/paper/{name}.toml"
    device = re.search(r"--device ([\w-]+)`", path.read_text())[1]
    plan = json.loads(subprocess.run([PROGRAM, "plan", path, "--device", device, "--json"], capture_output=True, text=True, check=True).stdout)
    parameters, flops = PAPER[name]
    assert plan["parameters"] / 1e9 == pytest.approx(parameters, abs=0.05 if parameters < 10 else 0.5)
    assert plan["flops_per_sequence"] / 1e9 == pytest.approx(flops, rel=0.01)
    assert plan["batch_size"] * plan["encoder_length"] == 2**20
    written = {axis: int(ranks) for axis, ranks in re.findall(r"^(data|expert|tensor) = (\d+)$", path.read_text(), re.MULTILINE)}
    best = plan["layouts"][0]
    assert best["fits"] and {axis: best[axis] for axis in ("data", "expert", "tensor") if best[axis] > 1} == written
