#!/usr/bin/env python3
"""Throughput and time to the first token at 1, 8 and 32 clients: `switchyard serve` against peers behind plain servers.

    bench/serve_load.py --folder /tmp/load [--seconds 60] [--clients 1 8 32] [--shape base|tiny] [--peers PYTHON] [--out FILE]

T5-base in int8 against CTranslate2 and switch-base-8 in bf16 against Hugging Face transformers, random weights, the same
prompts (--input ids) and --output tokens for everybody, greedy, one server at a time, on loopback. --peers is a Python that
has transformers and ctranslate2; a peer that is not there is left out, and said so. Models are made once, in --folder (4 GB
for base). Every client asks again and again for --seconds, and its last request is waited for. Prints one JSON object a
line, then ratios to the peer at each number of clients.
"""

import argparse
import http.client
import json
import pathlib
import random
import subprocess
import sys
import threading
import time

from serving import Server

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPES = {"base": {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12}, "tiny": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4}}
MAKE = """
import json, sys, torch, transformers
kind, shape, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
common = dict(vocab_size=32128, decoder_start_token_id=0, num_decoder_layers=shape['num_layers'], **shape)
torch.manual_seed(1)
if kind == 't5':
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**common))
else:
    model = transformers.SwitchTransformersForConditionalGeneration(transformers.SwitchTransformersConfig(num_experts=8, encoder_sparse_step=2,
        decoder_sparse_step=2, num_sparse_encoder_layers=shape['num_layers'] // 2, num_sparse_decoder_layers=shape['num_layers'] // 2, **common))
with torch.no_grad():
    model.shared.weight[0] = 0  # tied random tables say again what they read: padding, which has no text
model.save_pretrained(out)
"""
CONVERT = """
import sys, ctranslate2
from ctranslate2.converters import TransformersConverter
import transformers
NAMES = ['<pad>', '</s>', '<unk>'] + [f'<{n}>' for n in range(3, 32128)]
class Words:  # ids as they are: no text passes
    pad_token, eos_token, unk_token, bos_token, additional_special_tokens = '<pad>', '</s>', '<unk>', None, []
    def get_vocab(self): return {name: n for n, name in enumerate(NAMES)}
    def convert_ids_to_tokens(self, n): return NAMES[n]
class Converter(TransformersConverter):
    def load_tokenizer(self, *_, **__): return Words()
Converter(sys.argv[1]).convert(sys.argv[2], quantization='int8', force=True)
"""


def make_models(options):
    """Folders of the two models, the first in int8, and of CTranslate2's form of the first (None without it)."""
    folder = options.folder / options.shape
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "spiece.model").exists():  # nearly every id has a text, so that the first token is seen when it comes
        draw = random.Random(0)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(45000)]
        shuffled = [word for _ in range(3) for word in draw.sample(words, len(words))]
        (folder / "words.txt").write_text("\n".join(" ".join(shuffled[n:n + 50]) for n in range(0, len(shuffled), 50)))
        subprocess.run([options.program, "vocab", "train", "--text", folder / "words.txt", "--size", "32000", "--out", folder / "spiece.model"], check=True)
    for kind in "t5", "switch":
        if not (folder / kind / "config.json").exists():
            subprocess.run([options.peers, "-c", MAKE, kind, json.dumps(SHAPES[options.shape]), folder / kind], check=True)
        (folder / kind / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
    quantised = folder / "t5-int8"
    if not (quantised / "config.json").exists():
        subprocess.run([options.program, "convert", "--from", folder / "t5", "--to", quantised, "--dtype", "int8"], check=True)
    converted = folder / "t5-ctranslate2"
    if not (converted / "model.bin").exists():
        done = subprocess.run([options.peers, "-c", CONVERT, folder / "t5", converted], capture_output=True, text=True)
        if done.returncode:
            print(f"CTranslate2 is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            converted = None
    return quantised, folder / "switch", converted


def request(port, ids, tokens, is_ours):
    """Seconds to the first token. Answers have all tokens: ours is told so, peers always do."""
    body = json.dumps({"prompt": ids, "max_tokens": tokens, "stream": True} | ({"min_tokens": tokens} if is_ours else {}))
    start, first = time.perf_counter(), None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.read()[:300]!r}")
    while line := answer.readline():
        if first is None and line.startswith(b"data: {"):
            first = time.perf_counter() - start
        if line.startswith(b"data: [DONE]"):
            break
    connection.close()
    return first


def load(port, clients, options, is_ours):
    """Every client asks again and again until time is up; what ends by then counts."""
    firsts, lock, begin = [], threading.Lock(), time.perf_counter()
    deadline, last = begin + options.seconds, [begin]

    def client(number):
        draw = random.Random(number)
        while time.perf_counter() < deadline:
            first = request(port, [draw.randrange(3, 32000) for _ in range(options.input - 1)] + [1], options.output, is_ours)
            with lock:
                firsts.append(first)
                last[0] = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    firsts.sort()
    return {"clients": clients, "requests": len(firsts), "tokens_per_second": round(len(firsts) * options.output / (last[0] - begin), 1),
            "first_token_p50": round(firsts[len(firsts) // 2], 4), "first_token_p99": round(firsts[min(len(firsts) - 1, int(0.99 * len(firsts)))], 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--program", default=ROOT / "build/release/switchyard")
    parser.add_argument("--peers", default=ROOT / ".venv/bin/python")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input", type=int, default=128)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    t5, switch, converted = make_models(options)
    peer = [options.peers, ROOT / "bench/serve_peer.py"]

    def ours(model, dtype):
        return [options.program, "serve", "--model", model, "--port", 0, "--slots", options.slots, "--queue", 64, "--max-length", options.output + 8, "--dtype", dtype]
    runs = [("t5-base", "switchyard", "int8", ours(t5, "bf16")),
            *([("t5-base", "ctranslate2", "int8", [*peer, "ctranslate2", converted, options.threads, "int8"])] if converted else []),
            ("switch-base-8", "switchyard", "bf16", ours(switch, "bf16")), ("switch-base-8", "transformers", "bf16", [*peer, "hf", switch, options.threads, "bf16"])]
    rows = []
    for model, name, dtype, command in runs:
        server = Server(command, threads=options.threads)
        is_ours = name == "switchyard"
        request(server.port, [5] * (options.input - 1) + [1], options.output, is_ours)  # pages are in memory, and buffers made
        for clients in options.clients:
            rows.append({"model": model if options.shape == "base" else options.shape + " " + model, "server": name, "dtype": dtype, **load(server.port, clients, options, is_ours)})
            print(json.dumps(rows[-1]), flush=True)
        if is_ours:
            server.end()
        else:
            server.process.kill()
            server.process.wait()
    for clients in options.clients:
        for peer_name in "ctranslate2", "transformers":
            theirs = next((row for row in rows if row["server"] == peer_name and row["clients"] == clients), None)
            if theirs is None:
                continue
            mine = next(row for row in rows if row["server"] == "switchyard" and row["model"] == theirs["model"] and row["clients"] == clients)
            print(f"{theirs['model']}, {clients} clients: {mine['tokens_per_second'] / theirs['tokens_per_second']:.2f} times {peer_name}, "
                  f"first token p50 {mine['first_token_p50']:.3f} s against {theirs['first_token_p50']:.3f} s")
    if options.out:
        options.out.write_text(json.dumps({"input": options.input, "output": options.output, "slots": options.slots, "threads": options.threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
