"""`inspect --memory` beside the peak that a run of one process logs: within 10 %."""

import json

import pytest

from conftest import switchyard
from test_plan_measured import assert_near, measure, prepare

ONE = (1, 1, 1)
ONE_PASS = ["train.batch_size=4", "train.micro_batch_size=0"]
LARGE_PASS = ["train.batch_size=16", "train.micro_batch_size=0"]
# A model so small that what is measured is the program: every part of a width that the same kernels take.
TINY = ["model.d_model=64", "model.d_ff=256", "model.d_kv=64", "model.num_encoder_layers=1", "model.num_decoder_layers=1",
        "data.encoder_length=32", "model.encoder_sparse_step=1", "model.decoder_sparse_step=1"]  # fmt: skip


def report(run):
    done = switchyard("inspect", "--memory", run, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def program(folder):
    """What the process takes beside the model."""
    line, peak, run = measure(folder, ONE, TINY)
    assert 0.95 * peak < line["peak_memory_bytes"] <= peak
    return line["peak_memory_bytes"] - report(run)["memory_bytes"]["peak"]


@pytest.mark.parametrize("settings", [ONE_PASS, [], [*ONE_PASS, "train.dtype=fp32"], [*ONE_PASS, "optimizer.name=adamw"], LARGE_PASS,
                                      [*LARGE_PASS, "train.recompute_blocks=2"]],
                         ids=["one pass", "several passes", "fp32", "adamw", "large pass", "recomputed"])
def test_the_peak_of_a_run_is_as_reported(folder, program, settings):
    line, _, run = measure(folder, ONE, settings)
    assert_near(report(run)["memory_bytes"]["peak"], line["peak_memory_bytes"] - program, "peak")


def test_a_preset_and_a_folder_have_reports(folder):
    bytes_of = {batch: json.loads(switchyard("inspect", "--memory", "switch-mini-8", "--batch", batch, "--json").stdout)["memory_bytes"] for batch in (1, 8)}
    assert bytes_of[8]["weights"] == bytes_of[1]["weights"] and bytes_of[8]["activations"] == 8 * bytes_of[1]["activations"]
    said = switchyard("inspect", "--memory", folder / "run.toml").stdout
    assert "1 of 16 sequences a pass" in said and "peak" in said
