"""One run on any layout of ranks: the same losses, routing and weights as one rank, and checkpoints that tell no layout."""

import json
import os
import socket
import subprocess

import numpy as np
import pytest
from safetensors import safe_open

from conftest import PROGRAM, metrics, switchyard

ROUTERS = {
    "top_1": [],
    "top_2": ["routing.num_selected_experts=2"],
    "no_token_left_behind": ["routing.router=no_token_left_behind"],
    "expert_choice": ["routing.router=expert_choice"],
    "every_part": ["model.gated=true", "model.tie_output=false", "model.encoder_attention_sparse_step=1", "routing.shared_expert_d_ff=64",
                   "routing.selection_bias_rate=0.001", "routing.router_bias=true", "optimizer.name=adamw"],
    "muon": ["optimizer.name=muon"],
    "frozen_experts": ['train.frozen=["experts"]'],
}
# data, expert, tensor: every factoring of 1, 2, 4 and 8.
LAYOUTS = [(d, e, n // d // e) for n in (2, 4, 8) for d in (1, 2, 4, 8) for e in (1, 2, 4, 8) if n % (d * e) == 0]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def on_ranks(count, *arguments):
    """Runs the program as `count` ranks, as torchrun would start them; returns the finished processes."""
    port = free_port()
    ranks = []
    for rank in range(count):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank),
                           LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                           OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
        ranks.append(subprocess.Popen([PROGRAM, *map(str, arguments)], env=environment, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return [(rank.communicate(timeout=240), rank.returncode) for rank in ranks]


def train(layout, run, out, *settings):
    data, expert, tensor = layout
    settings = [*settings, f"parallel.data={data}", f"parallel.expert={expert}", f"parallel.tensor={tensor}"]
    arguments = ["train", run, "--out", out, "--quiet"]
    for setting in settings:
        arguments += ["--resume"] if setting == "--resume" else ["--set", setting]
    for (_, errors), code in on_ranks(data * expert * tensor, *arguments):
        assert code == 0, errors


@pytest.fixture(scope="module")
def run(workshop):
    """Sizes that eight ranks can cut; all noise is on; a group of two sequences, so that ranks hold whole groups."""
    path = workshop / "ranks.toml"
    path.write_text("""
[model]
preset = "switch-tiny-4"
d_model = 64
d_ff = 128
num_heads = 8
d_kv = 8
dropout_rate = 0.1
expert_dropout_rate = 0.4

[routing]
group_size = 48

[data]
text = ["train.txt"]
eval_text = ["held.txt"]
vocab = "spiece.model"
encoder_length = 48

[train]
steps = 20
batch_size = 8
dtype = "fp32"
eval_every = 10
eval_examples = 8
save_every = 10

[optimizer]
learning_rate = 0.001
schedule = "constant"
""")
    return path


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    """Folder of the run on one rank, by router."""
    made = {}

    def folder(router):
        if router not in made:
            made[router] = tmp_path_factory.mktemp("alone") / router
            settings = [argument for setting in ROUTERS[router] for argument in ("--set", setting)]
            done = switchyard("train", run, "--out", made[router], "--quiet", *settings)
            assert done.returncode == 0, done.stderr
        return made[router]

    return folder


def numbers(value):
    if isinstance(value, (dict, list)):
        return [n for each in (value.values() if isinstance(value, dict) else value) for n in numbers(each)]
    return [value]


EXACT = ("step", "tokens_seen", "dropped_fraction", "expert_load", "expert_load_max", "left_behind_fraction", "eval_tokens",
         "eval_dropped_fraction")


def assert_same_run(left, right):
    """Equal lines: routing to the bit, what is summed to 1e-5."""
    left, right = metrics(left), metrics(right)
    assert len(left) == len(right)
    for one, other in zip(left, right):
        other.pop("wire_bytes", None)
        one.pop("wire_bytes", None)
        assert one.keys() == other.keys()
        for key in one:
            if key in EXACT:
                assert one[key] == other[key], (one["step"], key)
            elif key != "layer_importance_loss":  # a difference of nearly equal numbers
                assert numbers(other[key]) == pytest.approx(numbers(one[key]), rel=1e-5, abs=1e-7), (one["step"], key)


@pytest.mark.parametrize("layout", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_packed_rows_are_those_of_one_rank(layout, run, workshop, tmp_path):
    (workshop / "glue_sst2").mkdir(exist_ok=True)
    rows = [json.dumps({"sentence": "a lamp " * (1 + n % 3), "label": n % 2}) for n in range(40)]
    (workshop / "glue_sst2/train.jsonl").write_text("\n".join(rows) + "\n")
    packed = workshop / "packed.toml"
    parts = '\n[[data.mixture]]\ntext = ["train.txt"]\nrate = 1\n[[data.mixture]]\ntask = "glue_sst2"\nrate = 3\n'
    packed.write_text(run.read_text().replace('text = ["train.txt"]', 'folder = "."\ndecoder_length = 32\npack = true', 1) + parts)
    train((1, 1, 1), packed, tmp_path / "one", "train.steps=6")
    train(layout, packed, tmp_path / "more", "train.steps=6")
    steps = [line for line in metrics(tmp_path / "one") if "filled" in line]
    assert sum(steps[-1]["part_examples_seen"].values()) > 6 * 8 and len(steps) == 6
    assert_same_run(tmp_path / "one", tmp_path / "more")


def tensors(folder):
    step = (folder / "latest").read_text().strip()
    found = {}
    for path in (folder / "checkpoints" / step).glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():
                assert name not in found, name
                found[name] = file.get_tensor(name)
    return found


def assert_same_weights(left, right):
    """Each tensor to 1e-5 of its length: Adafactor divides by a gradient's size, so that single elements with gradients
    near 0 move further."""
    left, right = tensors(left), tensors(right)
    assert left.keys() == right.keys()
    for name in left:
        assert np.linalg.norm(left[name] - right[name]) <= 1e-5 * np.linalg.norm(left[name]), name


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "x".join(map(str, layout)))
def test_any_layout_is_one_rank(layout, run, alone, tmp_path):
    train(layout, run, tmp_path / "run")
    assert_same_run(alone("top_1"), tmp_path / "run")
    assert_same_weights(alone("top_1"), tmp_path / "run")


@pytest.mark.parametrize("layout", [(2, 2, 2), (1, 4, 1), (2, 1, 2)], ids=lambda layout: "x".join(map(str, layout)))
@pytest.mark.parametrize("router", list(ROUTERS)[1:])
def test_every_router_is_the_same(router, layout, run, alone, tmp_path):
    train(layout, run, tmp_path / "run", *ROUTERS[router])
    assert_same_run(alone(router), tmp_path / "run")
    assert_same_weights(alone(router), tmp_path / "run")


@pytest.mark.parametrize("before, after", [((1, 1, 1), (2, 2, 1)), ((1, 2, 2), (1, 1, 1)), ((2, 2, 1), (1, 3, 1)), ((1, 4, 1), (2, 1, 2))],
                         ids=lambda layout: "x".join(map(str, layout)))
def test_a_checkpoint_goes_on_under_another_layout(before, after, run, alone, tmp_path):
    batch = "train.batch_size=12" if 3 in after else "train.batch_size=8"
    train(before, run, tmp_path / "run", "train.steps=10", batch)
    train(after, run, tmp_path / "run", "--resume", batch)
    reference = alone("top_1")
    if 3 in after:
        reference = tmp_path / "reference"
        train((1, 1, 1), run, reference, batch)
    assert_same_run(reference, tmp_path / "run")
    assert_same_weights(reference, tmp_path / "run")


def test_resume_under_the_same_layout_is_exact(run, tmp_path):
    train((1, 2, 2), run, tmp_path / "whole")
    train((1, 2, 2), run, tmp_path / "cut", "train.steps=10")
    train((1, 2, 2), run, tmp_path / "cut", "--resume")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_rows_travel_and_nothing_of_the_size_of_tokens_times_experts(run, tmp_path):
    """Bytes of the all-to-alls: rows of d_model f32, twice a layer and pass; counts; gradients and values to owners."""
    train((1, 2, 1), run, tmp_path / "run", "train.steps=2", "routing.train_capacity_factor=8.0", "model.expert_dropout_rate=0.0",
          "routing.router=hash")
    sent = [line["wire_bytes"]["all_to_all"] for line in metrics(tmp_path / "run") if "wire_bytes" in line]
    config = json.loads((tmp_path / "run/checkpoints" / (tmp_path / "run/latest").read_text().strip() / "config.json").read_text())
    weights = tensors(tmp_path / "run")
    values = sum(tensor.size for name, tensor in weights.items() if ".expert_" not in name)
    rows = (sent[0] - 2 * 4 * values // 2) / (4 * config["d_model"] * 4)  # four journeys; owners have half of what all hold
    tokens = 4 * (48 + 18) * 1  # of this rank, one sparse layer a stack
    assert 0.3 * tokens < rows < 0.7 * tokens  # about half of the experts are elsewhere


def test_what_cannot_be_is_refused(run, tmp_path):
    def message(count, *settings):
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        ended = on_ranks(count, "train", run, "--out", tmp_path / "refused", "--quiet", *arguments)
        assert all(code == 2 for _, code in ended), ended
        return ended[-1][0][1]

    assert "cannot be 2 ranks" in message(2, "parallel.data=4")
    assert "splits routing groups of 8 sequences" in message(2, "parallel.data=2", "routing.group_size=4096")
    assert "multiple of 2" in message(2, "parallel.data=2", "train.batch_size=5")

    assert "2 heads" in message(3, "parallel.tensor=3", "model.num_heads=2")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("ranks", [2, 8])
def test_ranks_hold_a_model_together(ranks, alone, workshop):
    """Four experts and eight heads: two ranks share out experts, eight cut layers, too."""
    model = alone("top_1")
    generate = ["generate", "--model", model, "--prompt", "Ada found <extra_id_0> at the market", "--prompt", "Carla sold",
                "--max-tokens", "12", "--json", "--beams", "2"]
    evaluate = ["eval", "--model", model, "--text", workshop / "held.txt", "--max-examples", "8", "--json"]
    for arguments in generate, evaluate:
        expected = switchyard(*arguments)
        assert expected.returncode == 0, expected.stderr
        ended = on_ranks(ranks, *arguments)
        for number, ((output, errors), code) in enumerate(ended):
            assert code == 0, errors
            assert number == 0 or output == ""
        for line, other in zip(expected.stdout.splitlines(), ended[0][0][0].splitlines(), strict=True):
            line, other = json.loads(line), json.loads(other)
            assert line.keys() == other.keys()
            for key in line:
                assert other[key] == (pytest.approx(line[key], rel=1e-5) if isinstance(line[key], float) else line[key])
    _, refusal = on_ranks(2, "generate", "--model", model)[0][0]
    assert "--prompt" in refusal
