"""Models larger than memory: opening one reads its headers, and generating takes memory for the experts that were used.

The files are sparse: weights of 0 that take no disk. With routers of 0 every token goes to expert 0.
"""

import json
import os
import struct
import subprocess
import sys

import pytest
from conftest import PROGRAM, switchyard

GB = 10**9


def write_model(folder, preset):
    """A model of the preset's shape in bf16 whose weights are holes. Returns the preset's tensors."""
    tensors = json.loads(switchyard("inspect", preset, "--json").stdout)["tensors"]
    header, end = {}, 0
    for tensor in tensors:
        begin, count = end, 1
        for size in tensor["shape"]:
            count *= size
        end = begin + 2 * count
        header[tensor["name"]] = {"dtype": "BF16", "shape": tensor["shape"], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    if os.stat(folder / "model.safetensors").st_blocks * 512 > end // 10:
        pytest.skip(f"{folder}: the file system has no sparse files")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "switch_transformers", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12,
        "num_layers": 12, "num_decoder_layers": 12, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6,
        "num_experts": sum(".1.layer.1.mlp.experts" in tensor["name"] and ".wi." in tensor["name"] for tensor in tensors
                           if tensor["name"].startswith("encoder.block.1.")),
        "expert_capacity": 64, "dense_act_fn": "relu", "tie_word_embeddings": True,
    }))  # fmt: skip
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
