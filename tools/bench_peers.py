#!/usr/bin/env python3
"""Speed of Switchyard beside HF transformers, on this machine, in one run.

Both sides run the same job in turn, round by round, so that a machine that slows down slows both; the table gives the
median over rounds and the ratio of each round's pair. Absolute figures move from machine to machine, ratios much less.

  train     one optimiser step of switch-mini-8 (d_model 256, d_ff 1024, 4 heads of 64, 4 + 4 layers, 8 experts in every
            second block, vocabulary 32128) on 8 x (512 + 114) tokens with Adafactor: forward, backward, update
  t5        greedy generation by t5-base, 128 tokens in, 64 out, batch 1 and 8, beside CTranslate2 in fp32 and int8, which has an environment of its own
            (bench/ctranslate2.txt, made in build/ctranslate2 when it is missing); --no-ctranslate2 leaves it out
  decode    greedy decoding of switch-base-8, 128 tokens in, 64 out (--decode)

transformers runs in each precision it offers (fp32, bf16 weights, bf16 autocast); its best counts for bf16.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--rounds", type=int, default=3, help="times that every contender has its turn (default 3)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="threads of both (default 2)")
    parser.add_argument("--decode", action="store_true", help="greedy decoding of switch-base-8 too (some minutes, 6 GB)")
    parser.add_argument("--no-ctranslate2", action="store_true", help="leave CTranslate2 and t5-base out")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of t5-base (default 1 8)")
    parser.add_argument("--no-train", action="store_true", help="leave training out")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/peers.json", help="figures as JSON")
    chosen = parser.parse_args()
    if not chosen.program.is_file():
        sys.exit(f"bench: {chosen.program} is missing; run `make build`, or pass --program")
    if chosen.rounds < 1:
        sys.exit("bench: --rounds must be 1 or more")
    return chosen


def switchyard(chosen: argparse.Namespace, *arguments) -> dict:
    command = [str(chosen.program), "bench", *map(str, arguments), "--threads", str(chosen.threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def switch_config(**shape):
    from transformers import SwitchTransformersConfig

    return SwitchTransformersConfig(
        vocab_size=32128, d_kv=64, num_experts=8, expert_capacity=64, dropout_rate=0.0, decoder_start_token_id=0, **shape
    )


def transformers_trainer(dtype: str):
    """A function that does one optimiser step. dtype: fp32, bf16 (weights) or autocast."""
    import torch
    from transformers import SwitchTransformersForConditionalGeneration
    from transformers.optimization import Adafactor

    torch.manual_seed(0)
    shape = dict(d_model=256, d_ff=1024, num_heads=4, num_layers=4, num_decoder_layers=4)
    model = SwitchTransformersForConditionalGeneration(
        switch_config(**shape, num_sparse_encoder_layers=2, num_sparse_decoder_layers=2)
    ).train()
    if dtype == "bf16":
        model = model.to(torch.bfloat16)
    optimizer = Adafactor(model.parameters(), lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False)
    inputs, labels = torch.randint(3, 32128, (8, 512)), torch.randint(3, 32128, (8, 114))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
            loss = model(input_ids=inputs, labels=labels, output_router_logits=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def transformers_decoder(dtype: str):
    import torch
    from transformers import SwitchTransformersForConditionalGeneration

    torch.manual_seed(0)
    shape = dict(d_model=768, d_ff=3072, num_heads=12, num_layers=12, num_decoder_layers=12)
    model = SwitchTransformersForConditionalGeneration(
        switch_config(**shape, num_sparse_encoder_layers=6, num_sparse_decoder_layers=6)
    ).eval()
    if dtype == "bf16":
        model = model.to(torch.bfloat16)
    inputs = torch.randint(3, 32128, (1, 128))

    def decode():
        with torch.no_grad():
            model.generate(inputs, min_new_tokens=64, max_new_tokens=64, do_sample=False, num_beams=1)

    return decode


def seconds(job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def rounds_of(contenders: dict, rounds: int) -> dict:
    """{name: [units per second, one a round]}; each contender is a function that returns units per second."""
    figures = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            figures[name].append(measure())
            print(f"  round {number + 1}/{rounds}  {name:<28} {figures[name][-1]:10.1f}", file=sys.stderr)
    return figures


def table(title: str, unit: str, figures: dict, pairs: list) -> dict:
    """Prints medians with their range, then ratios: pairs are (label, ours, [theirs, ...])."""
    print(f"\n{title}\n{'':2}{'':<28} {unit:>12}   lowest - highest")
    summary = {}
    for name, values in figures.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<28} {middle:12,.0f}   {low:,.0f} - {high:,.0f}")
        summary[name] = {"median": middle, "rounds": values}
    for label, ours, theirs in pairs:
        best = max(theirs, key=lambda name: statistics.median(figures[name]))
        ratios = [a / b for a, b in zip(figures[ours], figures[best], strict=True)]
        middle = statistics.median(ratios)
        print(f"  {label:<28} {middle:11.2f}x   {min(ratios):.2f} - {max(ratios):.2f}   over {best}")
        summary[label] = {"ratio": middle, "over": best, "rounds": ratios}
    return summary


def bench_train(chosen: argparse.Namespace) -> dict:
    tokens = 8 * (512 + 114)
    contenders, gemm = {}, {}

    def ours(dtype):
        def measure():
            result = switchyard(chosen, "train", "--model", "switch-mini-8", "--dtype", dtype, "--repeats", 3)
            gemm[dtype] = result["gemm_gflops"]
            return result["tokens_per_second"]

        return measure

    def theirs(dtype):
        step = transformers_trainer(dtype)
        step()  # allocations, and kernels chosen
        return lambda: tokens / statistics.median(seconds(step) for _ in range(2))

    for dtype in ("bf16", "fp32"):
        contenders[f"switchyard {dtype}"] = ours(dtype)
    for dtype in ("bf16", "autocast", "fp32"):
        contenders[f"transformers {dtype}"] = theirs(dtype)
    figures = rounds_of(contenders, chosen.rounds)
    pairs = [
        ("ratio, bf16", "switchyard bf16", ["transformers bf16", "transformers autocast", "transformers fp32"]),
        ("ratio, fp32", "switchyard fp32", ["transformers fp32"]),
    ]
    summary = table("Training step, switch-mini-8, 8 x (512 + 114) tokens", "tokens/s", figures, pairs)
    print(f"  this machine's large products: {', '.join(f'{name} {rate:,.0f} GFLOP/s' for name, rate in gemm.items())}")
    return summary | {"gemm_gflops": gemm}


def bench_decode(chosen: argparse.Namespace) -> dict:
    contenders = {}

    def theirs(dtype):
        decode = transformers_decoder(dtype)
        decode()
        return lambda: 64 / seconds(decode)

    for dtype in ("bf16", "fp32"):
        contenders[f"switchyard {dtype}"] = lambda dtype=dtype: switchyard(
            chosen, "generate", "--model", "switch-base-8", "--dtype", dtype, "--repeats", 3
        )["tokens_per_second"]
    for dtype in ("bf16", "fp32"):
        contenders[f"transformers {dtype}"] = theirs(dtype)
    pairs = [
        ("ratio, bf16", "switchyard bf16", ["transformers bf16", "transformers fp32"]),
        ("ratio, fp32", "switchyard fp32", ["transformers fp32"]),
    ]
    return table("Greedy decoding, switch-base-8, 128 tokens in, 64 out", "tokens/s", rounds_of(contenders, chosen.rounds), pairs)


CTRANSLATE2 = ROOT / "build/ctranslate2"


def make_ctranslate2() -> bool:
    """Its environment and a model of t5-base's shape, made once. False, with the reason told, where that does not work."""
    python, model = CTRANSLATE2 / "bin/python3", CTRANSLATE2 / "t5-base"
    own = pathlib.Path(sysconfig.get_paths()["purelib"])
    commands = []
    if not (CTRANSLATE2 / "complete").is_file():
        commands += [[sys.executable, "-m", "venv", "--clear", CTRANSLATE2], [python, "-m", "pip", "install", "-q", "-r", ROOT / "bench/ctranslate2.txt"]]
    if not (model / "model.bin").is_file() or commands:
        commands.append([python, ROOT / "bench/ctranslate2_peer.py", "convert", model])
    for command in commands:
        # torch and transformers are found in this program's environment.
        environment = dict(os.environ, PYTHONPATH=str(own)) if command[-2:-1] == ["convert"] else os.environ
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            print(f"bench: CTranslate2 is left out: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-1500:]}", file=sys.stderr)
            return False
    (CTRANSLATE2 / "complete").touch()
    return True


def ctranslate2(chosen: argparse.Namespace, compute_type: str, batch: int) -> float:
    command = [CTRANSLATE2 / "bin/python3", ROOT / "bench/ctranslate2_peer.py", "run", CTRANSLATE2 / "t5-base", compute_type, batch, chosen.threads]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)["tokens_per_second"]


def bench_t5(chosen: argparse.Namespace, batch: int) -> dict:
    def ours(*options):
        return lambda: switchyard(chosen, "generate", "--model", "t5-base", "--batch", batch, "--repeats", 3, *options)["tokens_per_second"]

    contenders = {
        "switchyard fp32": ours("--dtype", "fp32"),
        "switchyard bf16": ours("--dtype", "bf16"),
        "switchyard int8": ours("--dtype", "bf16", "--weights", "int8"),
        "ctranslate2 fp32": lambda: ctranslate2(chosen, "float32", batch),
        "ctranslate2 int8": lambda: ctranslate2(chosen, "int8", batch),
    }
    theirs = ["ctranslate2 fp32", "ctranslate2 int8"]
    pairs = [
        ("ratio, fp32", "switchyard fp32", theirs[:1]),
        ("ratio, bf16", "switchyard bf16", theirs),
        ("ratio, int8", "switchyard int8", theirs),
    ]
    return table(f"Greedy generation, t5-base, batch {batch}, 128 tokens in, 64 out", "tokens/s", rounds_of(contenders, chosen.rounds), pairs)


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    chosen = options()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if not chosen.no_train:
        result["train"] = bench_train(chosen)
    if not chosen.no_ctranslate2 and make_ctranslate2():
        result["t5_base"] = {f"batch {batch}": bench_t5(chosen, batch) for batch in chosen.batches}
    if chosen.decode:
        result["decode"] = bench_decode(chosen)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{result['processor']}, {chosen.threads} threads, torch {torch.__version__}; written to {chosen.out}")


if __name__ == "__main__":
    main()
