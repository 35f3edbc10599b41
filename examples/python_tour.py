#!/usr/bin/env python3
"""Trains a small sparse model on your text, looks at what its experts take, and lets it fill in blanks.

    pip install .
    python examples/python_tour.py books/ notes.txt --out tour --steps 300

Written to be read from top to bottom, or pasted into a notebook piece by piece.
"""

import argparse
import pathlib

import switchyard

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("text", nargs="+", help="files or folders of text")
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tour"), help="folder for vocabulary and run")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--preset", default="switch-mini-8")
parser.add_argument("--pieces", type=int, default=4000, help="size of the vocabulary")
parser.add_argument("--sentence", default="The <extra_id_0> sat by the <extra_id_1> and waited.")
options = parser.parse_args()

# 1. A vocabulary of the text.
options.out.mkdir(parents=True, exist_ok=True)
switchyard.Vocabulary.train(options.text, options.pieces, options.out / "spiece.model")
vocabulary = switchyard.Vocabulary.load(options.out / "spiece.model")
print(f"{len(vocabulary)} ids; the sentence as pieces: {[vocabulary.piece(id) for id in vocabulary.encode(options.sentence)]}")

# 2. Before training: what would this model take on eight GPUs?
plan = switchyard.plan(options.preset, devices=8, device="h200")
best = plan["layouts"][0]
print(f"{plan['parameters'] / 1e6:.1f} M parameters; on 8 H200: data x expert x tensor = {best['data']} x {best['expert']} x {best['tensor']}")

# 3. Training, one step after the other. Ctrl-C stops it between two steps.
config = {
    "model": {"preset": options.preset},
    "data": {"text": options.text, "eval_text": options.text, "vocab": str(options.out / "spiece.model"), "encoder_length": 128},
    "train": {"steps": options.steps, "batch_size": 16, "eval_every": max(1, options.steps // 3), "save_every": 0},
}
training = switchyard.train(config, out=options.out / "run")
for step in training:
    if step.evaluation or step.number == 1:
        held_out = f", held-out loss {step.evaluation['eval_loss']:.3f}" if step.evaluation else ""
        print(f"step {step.number}: loss {step.cross_entropy:.3f}, {step.metrics['tokens_per_second']:.0f} tokens/s{held_out}")
model = training.model()

# 4. What the experts take: layer by layer, each token's expert.
routing = model.routing(options.sentence)
for layer in routing.encoder:
    print(f"{layer.layer}:", " ".join(f"{piece}:{own[0] if own else '-'}" for piece, own in zip(routing.encoder_pieces, layer.experts)))

# 5. What it says: the likeliest filling, a sampled one as it grows, and how likely a given one is.
print(model.generate(options.sentence, max_tokens=20, beams=4).filled)
for piece in model.stream(options.sentence, max_tokens=20, temperature=0.8, seed=1):
    print(piece, end="", flush=True)
print()
for score in model.score([(options.sentence, "<extra_id_0> old man <extra_id_1> fire"), (options.sentence, "<extra_id_0> fire <extra_id_1> old man")]):
    print(f"log-probability {score.score:.2f}")

# 6. The encoder's states are torch tensors: here the likeness of two sentences.
first, second = (states.mean(0) for states in model.encode([options.sentence, "A man waited by the door."]))
print(f"likeness {first @ second / (first.norm() * second.norm()):.3f}")
