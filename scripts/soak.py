#!/usr/bin/env python3
"""Trains a small model twice under torchrun: undisturbed, and while its processes are killed again and again.

Both runs have to end with the same weights and the same metrics, to the bit, without manual work: torchrun starts the
ranks again, and they go on from the newest complete checkpoint. Kills come as the run moves on, each at a random moment
after a random step, and hit
  rank    one rank, as if it had crashed: torchrun ends the others and starts all of them again;
  group   torchrun and all ranks, as if the machine had failed: this script starts torchrun again;
  agent   torchrun alone: the ranks lose their store and have to end by themselves.
Prints the time to the last step of both runs. Exits with 1 if they differ or a run gets stuck.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent
TORCHRUN = SOURCE / ".venv/bin/torchrun"
STUCK_SECONDS = 180  # without a new step
TIMING = {"tokens_per_second", "step_seconds", "seconds", "eval_seconds", "model_flops_utilization", "peak_memory_bytes"}

RUN = """
[model]
preset = "switch-tiny-4"
[data]
text = ["train.txt"]
vocab = "spiece.model"
encoder_length = 48
[train]
steps = {steps}
batch_size = {batch}
dtype = "fp32"
save_every = {save_every}
[routing]
group_size = 48
[parallel]
data = {ranks}
"""


def fail(message):
    sys.exit(f"soak: {message}")


def make_text(sentences):
    draw = random.Random(1)
    words = ["".join(draw.choice(["ba", "ro", "mi", "ten", "sul", "ka"]) for _ in range(draw.randrange(1, 4))) for _ in range(400)]
    lines = [" ".join(draw.choice(words) for _ in range(12)) + "." + ("\n" if number % 6 == 5 else "") for number in range(sentences)]
    return "\n".join(lines) + "\n"


class Run:
    """One folder of a run and the torchrun that trains in it."""

    def __init__(self, options, folder, out):
        self.options, self.folder, self.out = options, folder, folder / out
        self.log = open(folder / f"{out}.log", "ab")
        self.torchrun = None

    def start(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        settings = [word for setting in self.options.set for word in ("--set", setting)]
        command = [TORCHRUN, "--no-python", f"--nproc-per-node={self.options.ranks}", "--max-restarts=1000000", "--monitor-interval=0.05",
                   "--master-addr=127.0.0.1", f"--master-port={port}", self.options.program, "train", self.folder / "run.toml",
                   "--out", self.out, "--resume", "--quiet", *settings]
        self.torchrun = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log, start_new_session=True,
                                         env=dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive"))

    def ranks(self):
        """Process ids of the ranks that live, by rank."""
        found = {}
        try:
            children = pathlib.Path(f"/proc/{self.torchrun.pid}/task/{self.torchrun.pid}/children").read_text().split()
        except FileNotFoundError:
            return found
        for child in children:
            try:
                variables = dict(word.split("=", 1) for word in pathlib.Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in word)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if "RANK" in variables:
                found[int(variables["RANK"])] = int(child)
        return found

    def step(self):
        """Of the last whole line of the metrics."""
        try:
            text = (self.out / "metrics.jsonl").read_bytes()
        except FileNotFoundError:
            return 0
        last = text[: text.rfind(b"\n") + 1].splitlines()[-1:]
        return json.loads(last[0])["step"] if last else 0

    def wait_for(self, goal):
        """Until the run has made the step, or has ended: False."""
        seen, since = self.step(), time.monotonic()
        while self.torchrun.poll() is None:
            step = self.step()
            if step >= goal:
                return True
            if step != seen:
                seen, since = step, time.monotonic()
            if time.monotonic() - since > STUCK_SECONDS:
                self.end()
                fail(f"no step after {seen} for {STUCK_SECONDS} s; see {self.log.name}")
            time.sleep(0.005)
        return False

    def finish(self):
        self.wait_for(float("inf"))
        if self.torchrun.returncode != 0:
            fail(f"torchrun ended with code {self.torchrun.returncode}; see {self.log.name}")

    def end(self):
        for pid in [self.torchrun.pid, *self.ranks().values()]:
            kill(pid)
        self.torchrun.wait()

    def weights(self):
        """Checksums of the last step's tensors, those of the optimiser too, by file."""
        folder = self.out / "checkpoints" / f"step-{self.options.steps:06d}"
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            fail(f"{folder} has no weights; see {self.log.name}")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def metrics(self):
        lines = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def strike(run, kind, draw):
    """Kills; afterwards the run goes on. False if there was nobody to kill."""
    ranks = run.ranks()
    if len(ranks) < run.options.ranks:
        return False
    if kind == "rank":
        kill(ranks[draw.randrange(run.options.ranks)])
        return True
    kill(run.torchrun.pid)
    if kind == "group":
        for pid in ranks.values():
            kill(pid)
    run.torchrun.wait()
    begin = time.monotonic()
    while any(is_running(pid) for pid in ranks.values()):
        if time.monotonic() - begin > STUCK_SECONDS:
            for pid in ranks.values():
                kill(pid)
            fail(f"ranks without a store still run after {STUCK_SECONDS} s; see {run.log.name}")
        time.sleep(0.01)
    run.start()
    return True


def disturbed(options, run, draw):
    """Trains to the end through all kills; returns how many there were of each kind."""
    kinds = {"rank": 0, "group": 0, "agent": 0}
    run.start()
    for number in range(options.kills):
        goal = min(options.steps - 1, 1 + number * options.steps // options.kills + draw.randrange(0, 3))
        kind = draw.choices(list(kinds), [6, 3, 1])[0]
        while True:
            if not run.wait_for(goal):
                fail(f"the run ended before kill {number + 1}, with code {run.torchrun.returncode}; see {run.log.name}")
            time.sleep(draw.random() * options.spread)
            if strike(run, kind, draw):
                break
        kinds[kind] += 1
        print(f"\rkill {number + 1} of {options.kills}, step {run.step()}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    run.finish()
    return kinds


def soak(options, folder):
    (folder / "train.txt").write_text(make_text(4000))
    subprocess.run([options.program, "vocab", "train", "--text", folder / "train.txt", "--size", "200", "--out", folder / "spiece.model"],
                   check=True, capture_output=True)
    (folder / "run.toml").write_text(RUN.format(steps=options.steps, batch=2 * options.ranks, save_every=options.save_every, ranks=options.ranks))

    def timed(train):
        begin = time.monotonic()
        return train(), time.monotonic() - begin

    whole, killed = Run(options, folder, "whole"), Run(options, folder, "killed")
    try:
        whole.start()
        _, seconds = timed(whole.finish)
        kinds, killed_seconds = timed(lambda: disturbed(options, killed, random.Random(options.seed)))
    finally:
        for run in (whole, killed):
            if run.torchrun and run.torchrun.poll() is None:
                run.end()
    same = whole.weights() == killed.weights() and whole.metrics() == killed.metrics()
    return {"ranks": options.ranks, "steps": options.steps, "kills": kinds, "seconds": round(seconds, 1),
            "killed_seconds": round(killed_seconds, 1), "same": same}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--spread", type=float, default=0.1, help="longest random wait before a kill, in seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    parser.add_argument("--set", action="append", default=[], help="a setting of both runs, section.key=value")
    parser.add_argument("--program", default=str(SOURCE / "build/release/switchyard"))
    parser.add_argument("--folder", type=pathlib.Path, help="where the runs are left; by default nothing is")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        result = soak(options, options.folder.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="switchyard-soak-") as folder:
            result = soak(options, pathlib.Path(folder))
    if options.json:
        print(json.dumps(result))
    else:
        kills = sum(result["kills"].values())
        print(f"{options.steps} steps by {options.ranks} ranks: {result['seconds']} s undisturbed, {result['killed_seconds']} s under {kills} kills "
              f"({', '.join(f'{count} of {kind}' for kind, count in result['kills'].items())}): "
              f"{result['killed_seconds'] / result['seconds']:.1f} times as long")
        print("weights and metrics: " + ("the same" if result["same"] else "DIFFERENT"))
    sys.exit(0 if result["same"] else 1)


if __name__ == "__main__":
    main()
