"""One program for every x86-64 processor: it takes the instructions that there are, or fewer by SWITCHYARD_ISA."""

import json
import os
import platform
import shutil
import subprocess

import pytest

from conftest import PROGRAM, metrics, refused, switchyard

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="one set of instructions on this architecture")


def environment(**variables):
    return dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive", **variables)


def machine_sets():
    """What /proc/cpuinfo says, which is not what the program asks."""
    with open("/proc/cpuinfo") as lines:
        flags = set(next(line for line in lines if line.startswith("flags")).split())
    sets = ["plain"]
    if {"avx2", "fma", "bmi2"} <= flags:
        sets.append("avx2")
        if {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"} <= flags:
            sets.append("avx512")
    return sets


def instructions(command=(), env=None):
    """Those that a short generation reports."""
    arguments = "bench generate --model switch-tiny-4 --input-length 16 --max-tokens 3 --repeats 1 --json".split()
    done = subprocess.run([*command, PROGRAM, *arguments],
                          capture_output=True, text=True, timeout=500, env=env or environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["instructions"]


def test_the_highest_set_is_chosen_and_a_lower_one_on_demand():
    sets = machine_sets()
    assert instructions() == sets[-1]
    for name in sets:
        assert instructions(env=environment(SWITCHYARD_ISA=name)) == name


def test_a_set_that_is_unknown_is_refused():
    message = refused("inspect", "switch-tiny-4", env=environment(SWITCHYARD_ISA="avx"))
    assert "SWITCHYARD_ISA=avx:" in message and "plain" in message


@pytest.mark.parametrize("name", machine_sets())
def test_training_repeats_its_bits_and_agrees_with_other_sets(workshop, tmp_path, name):
    def train(out, **variables):
        done = switchyard("train", workshop / "tiny.toml", "--out", out, "--quiet", "--set", "train.dtype=bf16", env=environment(**variables))
        assert done.returncode == 0, done.stderr
        return metrics(out)

    first, second = (train(tmp_path / run, SWITCHYARD_ISA=name) for run in ("first", "second"))
    assert first == second
    losses = [[line["loss"] for line in log if "loss" in line] for log in (first, train(tmp_path / "highest"))]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3) and losses[0]


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="no qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize("processor, name", [("Nehalem", "plain"), ("Haswell", "avx2")])
def test_no_instruction_is_used_that_the_processor_lacks(workshop, tmp_path, processor, name):
    emulated = ["qemu-x86_64", "-cpu", processor]  # stops at an instruction that the processor does not have
    assert instructions(emulated) == name
    if name != "plain":
        return  # emulating AVX2 takes minutes
    settings = [word for setting in ("train.steps=2", "train.batch_size=2", "data.encoder_length=24", "train.eval_every=0")
                for word in ("--set", setting)]
    done = subprocess.run([*emulated, PROGRAM, "train", workshop / "tiny.toml", "--out", tmp_path / "run", *settings],
                          capture_output=True, text=True, timeout=500, env=environment())
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*emulated, PROGRAM, "inspect", "switch-tiny-4"], capture_output=True, text=True, timeout=500,
                          env=environment(SWITCHYARD_ISA="avx2"))
    assert done.returncode == 2 and "with plain;" in done.stderr
