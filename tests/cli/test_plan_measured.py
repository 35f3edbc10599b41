"""What `switchyard plan` predicts of real runs of 2 to 8 ranks: bytes on the wire and memory, each within 10 %.

Run as a program it prints the table of docs/results.md: python tests/cli/test_plan_measured.py. `make test` leaves it out: how much memory a
process takes beside its tensors is the machine's, not the program's; pytest runs its cases.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from conftest import PROGRAM, make_text, switchyard
from test_ranks import free_port

# data, expert, tensor; the last ones with other settings than the run file's.
CASES = [((2, 1, 1), []), ((1, 2, 1), []), ((1, 1, 2), []), ((4, 1, 1), []), ((1, 4, 1), []), ((1, 1, 4), []),
         ((2, 2, 1), []), ((2, 1, 2), []), ((1, 2, 2), []), ((2, 2, 2), []), ((8, 1, 1), []), ((1, 8, 1), []),
         ((4, 1, 2), []), ((1, 4, 2), []),
         ((2, 2, 1), ["train.dtype=fp32"]), ((1, 2, 2), ["optimizer.name=adamw"]),
         ((1, 4, 1), ["routing.num_selected_experts=2", "routing.train_capacity_factor=2.0"]),
         ((2, 2, 1), ["model.expert_dropout_rate=0.1", "model.gated=true", "model.tie_output=false"])]  # fmt: skip
# Eight ranks take a while where there are two cores: as a test one layout of them.
TESTED = [case for case in CASES if case[0][0] * case[0][1] * case[0][2] < 8 or case[0] == (2, 2, 2)]
STEP = 3  # the step that is measured; memory has its shape after two

RUN = """
[model]
preset = "switch-mini-8"
num_experts = 16
num_encoder_layers = 2
num_decoder_layers = 2
[routing]
group_size = 0
[data]
text = ["train.txt"]
vocab = "spiece.model"
encoder_length = 256
[train]
steps = 1000
batch_size = 16
micro_batch_size = 1
dtype = "bf16"
eval_every = 0
save_every = 0
"""


def wait_for_step(path, ranks, step):
    """The metrics line of `step`, once it is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if path.exists():
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["step"] == step:
                    return json.loads(line)
        assert all(rank.poll() is None for rank in ranks), "a rank ended before its time"
        time.sleep(0.05)
    raise AssertionError(f"no step {step} within 200 seconds")


def peak_bytes(rank):
    """The most memory that a process has had."""
    for line in pathlib.Path(f"/proc/{rank.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no VmHWM")


def measure(folder, layout, settings):
    """A few steps: the first rank's metrics of the last one, and the peak memory of the fullest rank."""
    data, expert, tensor = layout
    count, port, out = data * expert * tensor, free_port(), folder / f"run-{time.monotonic_ns()}"
    arguments = [PROGRAM, "train", folder / "run.toml", "--out", out, "--quiet", "--threads", "1"]
    for setting in [*settings, f"parallel.data={data}", f"parallel.expert={expert}", f"parallel.tensor={tensor}"]:
        arguments += ["--set", setting]
    ranks = []
    for rank in range(count):
        # Freed blocks go back to the system: the heap's gaps are no part of a plan.
        environment = dict(os.environ, OMP_WAIT_POLICY="passive", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")
        if count > 1:
            environment |= dict(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count),
                                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        ranks.append(subprocess.Popen(list(map(str, arguments)), env=environment, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL))
    try:
        line = wait_for_step(out / "metrics.jsonl", ranks, STEP)
        return line, max(map(peak_bytes, ranks)), out / "run.toml"
    finally:
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.wait()


def predict(run, layout, line):
    """The plan of the same run with the rows that it dropped."""
    dropped = list(line["dropped_fraction"].values())
    done = switchyard("plan", run, "--layout", "x".join(map(str, layout)), "--device", "cpu", "--memory", "64", "--json",
                      "--dropped", sum(dropped) / len(dropped))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["layouts"][0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("planned"))


def prepare(folder):
    (folder / "train.txt").write_text(make_text(12000, 1))
    done = switchyard("vocab", "train", "--text", folder / "train.txt", "--size", 200, "--out", folder / "spiece.model")
    assert done.returncode == 0, done.stderr
    (folder / "run.toml").write_text(RUN)
    return folder


def baseline(folder, layout):
    """What a rank takes beside the model: program, libraries, text and the other ranks' connections. Every part is of a
    width that the same kernels take: plain compositions would load further libraries."""
    tiny = ["model.d_model=64", "model.d_ff=256", "model.d_kv=64", "model.num_encoder_layers=1",
            "model.num_decoder_layers=1", "data.encoder_length=32", "model.encoder_sparse_step=1",
            "model.decoder_sparse_step=1"]  # fmt: skip
    line, peak, run = measure(folder, layout, tiny)
    return peak - predict(run, layout, line)["memory_bytes"]["total"]


def compare(folder, layout, settings, without_model):
    line, peak, run = measure(folder, layout, settings)
    plan = predict(run, layout, line)
    sent = {kind: 0 for kind in ("all_to_all", "all_reduce", "broadcast")}
    for collective in plan["collectives"]:
        sent[collective["kind"]] += collective["first_bytes"]
    return {"memory": (plan["memory_bytes"]["total"], peak - without_model),
            **{kind: (sent[kind], line["wire_bytes"][kind]) for kind in sent}}


def assert_near(predicted, measured, what):
    assert abs(predicted - measured) <= 0.1 * measured, f"{what}: predicted {predicted}, measured {measured}"


@pytest.fixture(scope="module")
def baselines(folder):
    known = {}

    def of(layout):
        if layout not in known:
            known[layout] = baseline(folder, layout)
        return known[layout]

    return of


@pytest.mark.parametrize("layout, settings", TESTED, ids=lambda value: "x".join(map(str, value)) or "default")
def test_a_plan_is_what_is_measured(folder, baselines, layout, settings):
    for what, (predicted, measured) in compare(folder, layout, settings, baselines(layout)).items():
        assert_near(predicted, measured, what)


def main():
    import tempfile
    with tempfile.TemporaryDirectory() as name:
        place = prepare(pathlib.Path(name))
        known = {}
        print("| data x expert x tensor | settings | memory, MB | | all-to-all, KB | | all-reduce, KB | |\n|---|---|---|---|---|---|---|---|")
        for layout, settings in CASES[: int(sys.argv[1]) if len(sys.argv) > 1 else None]:
            known[layout] = known.get(layout) or baseline(place, layout)
            result = compare(place, layout, settings, known[layout])
            cells = []
            for what, unit in (("memory", 1e6), ("all_to_all", 1e3), ("all_reduce", 1e3)):
                predicted, measured = result[what]
                cells += [f"{predicted / unit:.1f} / {measured / unit:.1f}", f"{100 * (predicted / measured - 1):+.1f} %"]
            print(f"| {' x '.join(map(str, layout))} | {' '.join(settings)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
