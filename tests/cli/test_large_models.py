"""Models larger than memory: opening one reads its headers, and generating takes memory for the experts that were used.

The files are sparse: weights of 0 that take no disk. With routers of 0 every token goes to expert 0.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import PROGRAM, SOURCE, refused, switchyard

sys.path.insert(0, str(SOURCE / "bench"))
import expert_memory  # noqa: E402

GB = 10**9


def write_model(folder, preset, with_values=False):
    """A model of the preset's shape in bf16 whose weights are holes, with values but for embedding and routers."""
    end, header = expert_memory.write_model(PROGRAM, folder, preset, with_values)
    if os.stat(folder / "model.safetensors").st_blocks * 512 > end // 10:
        pytest.skip(f"{folder}: the file system has no sparse files")
    return end, header


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return folder, *write_model(folder, "switch-base-64")


def peak_memory(*arguments):
    """Runs the program in a process of its own; returns its largest resident set in bytes, and what it printed."""
    script = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True)\n"
        "sys.stderr.buffer.write(done.stderr)\n"
        "sys.stdout.buffer.write(done.stdout)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    command = [sys.executable, "-c", script, PROGRAM, *map(str, arguments)]
    environment = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    *output, peak = done.stdout.splitlines()
    return int(peak) * 1024, "\n".join(output)


def test_inspect_reads_headers(large):
    folder, size, header = large
    assert size > 7 * GB
    peak, output = peak_memory("inspect", folder, "--json")
    shown = json.loads(output)
    assert shown["bytes"] == size and len(shown["tensors"]) == len(header)
    assert peak < 0.25 * GB


def test_experts_take_no_more_than_they_are_given(tmp_path):
    """One has 9.4 MB; the prompt sends tokens to nearly all 64 of each layer."""
    _, header = write_model(tmp_path, "switch-base-64", with_values=True)
    dense = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items() if ".expert_" not in name)
    arguments = ("generate", "--model", tmp_path, "--ids", "--json", "--max-tokens", 8, "--dtype", "bf16",
                 "--prompt", " ".join(str(3 + 31 * number) for number in range(300)))  # fmt: skip
    told = {}
    for limit in (50, 600):  # MB; a token alone wants six experts, 57 MB
        peak, output = peak_memory(*arguments, "--expert-memory", f"{limit}MB")
        told[limit] = json.loads(output)
        memory = told[limit]["expert_memory"]
        assert memory["limit"] == limit * 10**6 and 0.8 * memory["limit"] < memory["peak_bytes"] <= memory["limit"]
        assert memory["bytes_read"] == memory["read"] * 2 * 2 * 768 * 3072
        assert memory["bytes_read"] > 2.5 * GB and peak < dense + memory["limit"] + 0.7 * GB
    assert told[50]["ids"] == told[600]["ids"] and len(told[50]["ids"]) == 8
    assert told[50]["expert_memory"]["hit_rate"] < told[600]["expert_memory"]["hit_rate"]
    assert "encoder.1 takes 9437184" in refused(*arguments, "--expert-memory", "9MB")


def test_generate_takes_memory_for_what_it_used(large):
    folder, size, header = large

    def used(name):
        return ".expert_" not in name or ".expert_0." in name

    touched = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items() if used(name))
    assert touched + GB < size / 4
    peak, output = peak_memory("generate", "--model", folder, "--ids", "--json", "--max-tokens", 4, "--dtype", "bf16",
                               "--prompt", "5 6 7 1")  # fmt: skip
    assert len(json.loads(output)["ids"]) <= 4
    assert peak < touched + GB
