#!/usr/bin/env python3
"""Generation by a model that does not fit memory: tokens a second, hit rate and peak memory under a bound for its experts.

    bench/expert_memory.py --preset switch-base-256 --expert-memory 8GiB --folder /tmp/large

The model has the preset's shape in bf16 and a random embedding and random routers, so that tokens go to all experts. Its other weights are holes
of a sparse file, zeros that take no disk: reading them costs what reading from the page cache costs, and no disk's time is in the figures.
"""

import argparse
import json
import pathlib
import random
import resource
import struct
import subprocess
import sys
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent


def write_model(program, folder, preset, with_values):
    """Writes config.json and model.safetensors. Returns the bytes of the tensors, and the file's header."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = json.loads(subprocess.run([program, "inspect", preset, "--json"], capture_output=True, text=True, check=True).stdout)
    header, end = {}, 0
    for tensor in shown["tensors"]:
        begin, count = end, 1
        for size in tensor["shape"]:
            count *= size
        end = begin + 2 * count
        header[tensor["name"]] = {"dtype": "BF16", "shape": tensor["shape"], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    generator = numpy.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        for name, entry in header.items() if with_values else ():
            if name == "shared.weight" or "router" in name:
                values = generator.standard_normal(entry["shape"], numpy.float32)
            elif "layer_norm" in name:
                values = numpy.ones(entry["shape"], numpy.float32)
            else:
                continue
            file.seek(8 + len(text) + entry["data_offsets"][0])
            file.write((values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())  # bf16, cut
    num_experts = sum(name.startswith("encoder.block.1.layer.1.mlp.experts.") and ".wi." in name for name in header)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "switch_transformers", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12,
        "num_layers": 12, "num_decoder_layers": 12, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6,
        "num_experts": num_experts, "expert_capacity": 64, "dense_act_fn": "relu", "tie_word_embeddings": True,
    }))  # fmt: skip
    return end, header


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--preset", default="switch-base-256", help="a shape of switch-base (default switch-base-256)")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the model, made where it is missing")
    parser.add_argument("--weights", choices=("bf16", "int8", "int4"), default="bf16", help="form of the weights (a whole file, converted, unless bf16)")
    parser.add_argument("--expert-memory", help="as of switchyard generate; left out: no bound")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="generated a prompt (default 64)")
    parser.add_argument("--slots", type=int, default=1, help="prompts decoded together (default 1)")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main():
    chosen = options()
    folder = chosen.folder
    if not (folder / "config.json").is_file():
        write_model(chosen.program, folder, chosen.preset, with_values=True)
    if chosen.weights != "bf16":
        folder = folder.with_name(folder.name + "-" + chosen.weights)
        if not (folder / "config.json").is_file():
            subprocess.run([chosen.program, "convert", "--from", chosen.folder, "--to", folder, "--dtype", chosen.weights], check=True)
    draw = random.Random(0)
    prompts = [" ".join(str(draw.randrange(100, 32000)) for _ in range(128)) for _ in range(chosen.prompts)]
    command = [chosen.program, "generate", "--model", folder, "--ids", "--json", "--dtype", "bf16", "--threads", chosen.threads,
               "--slots", chosen.slots, "--max-tokens", chosen.tokens, "--min-tokens", chosen.tokens]  # fmt: skip
    if chosen.expert_memory:
        command += ["--expert-memory", chosen.expert_memory]
    start = time.monotonic()
    done = subprocess.run([*map(str, command)], input="\n".join(prompts) + "\n", capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(done.stderr)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    tokens = sum(len(answer["ids"]) for answer in answers)
    print(json.dumps({
        "model": chosen.preset, "weights": chosen.weights, "tokens": tokens, "seconds": round(seconds, 2), "tokens_per_second": round(tokens / seconds, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024e-9, 2),
        "expert_memory": answers[-1].get("expert_memory"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
