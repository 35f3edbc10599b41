#!/usr/bin/env python3
"""Greedy generation by CTranslate2 for tools/bench_peers.py, in an environment of its own (bench/ctranslate2.txt).

    ctranslate2_peer.py convert FOLDER           a random model of t5-base's shape
    ctranslate2_peer.py run FOLDER TYPE BATCH THREADS    64 tokens for each of BATCH prompts of 128, TYPE float32 or int8: prints tokens a second

Weights are random, so every output is cut at the same length; what they are does not change the work.
"""

import json
import pathlib
import random
import statistics
import sys
import time

import ctranslate2

VOCAB = [f"t{number}" for number in range(32128)]  # 0 pad and start, 1 eos, 2 unk
INPUT, OUTPUT = 128, 64


class Tokenizer:
    """As much of one as the converter asks for."""

    pad_token, eos_token, unk_token = VOCAB[:3]

    def get_vocab(self):
        return {token: number for number, token in enumerate(VOCAB)}

    def convert_ids_to_tokens(self, number):
        return VOCAB[number]


def convert(folder):
    import torch
    import transformers
    from ctranslate2.converters.transformers import T5Loader

    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=len(VOCAB), d_model=768, d_ff=3072, num_heads=12, num_layers=12, num_decoder_layers=12, decoder_start_token_id=0)
    spec = T5Loader()(transformers.T5ForConditionalGeneration(config).eval(), Tokenizer())
    spec.validate()
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    spec.save(folder)


def run(folder, compute_type, batch, threads):
    translator = ctranslate2.Translator(folder, device="cpu", compute_type=compute_type, intra_threads=threads, inter_threads=1)
    draw = random.Random(0)
    prompts = [[VOCAB[draw.randrange(3, len(VOCAB))] for _ in range(INPUT)] for _ in range(batch)]
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        results = translator.translate_batch(prompts, beam_size=1, min_decoding_length=OUTPUT, max_decoding_length=OUTPUT)
        seconds.append(time.perf_counter() - start)
    assert all(len(result.hypotheses[0]) == OUTPUT for result in results)
    return {"version": ctranslate2.__version__, "tokens_per_second": batch * OUTPUT / statistics.median(seconds[1:])}


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(sys.argv[2])
    else:
        print(json.dumps(run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
