"""switchyard plan: the form of its JSON, the paper's figures, and what it refuses."""

import json
import xml.etree.ElementTree

import pytest

from conftest import refused, switchyard

MEMORY = {"weights", "gradients", "optimizer", "activations", "buffers", "overlap", "total"}
WIRE = {"all_to_all", "all_reduce", "broadcast", "total"}


def plan(*arguments):
    done = switchyard("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("preset, parameters, parameter_unit, flops, flop_unit", [
    ("t5-base", 0.2e9, 0.1e9, 124e9, 1e9),
    ("t5-large", 0.7e9, 0.1e9, 425e9, 1e9),
    ("switch-base-128", 7e9, 1e9, 124e9, 1e9),
    ("switch-large-128", 26e9, 1e9, 425e9, 1e9),
    ("switch-xxl", 395e9, 1e9, 6.3e12, 0.1e12),
    ("switch-c", 1571e9, 1e9, 869e9, 1e9),  # with the released 30 heads; the printed 890B are of 32
])  # fmt: skip
def test_table_9_within_its_rounding(preset, parameters, parameter_unit, flops, flop_unit):
    result = plan(preset, "--devices", 1)
    assert abs(result["parameters"] - parameters) < parameter_unit
    assert abs(result["flops_per_sequence"] - flops) < flop_unit


def test_the_form_of_the_json():
    result = plan("switch-mini-8", "--devices", 8, "--device", "a100-80", "--batch", 64)
    layouts = result["layouts"]
    assert sorted((each["data"], each["expert"], each["tensor"]) for each in layouts) == [
        (data, expert, 8 // data // expert) for data in (1, 2, 4, 8) for expert in (1, 2, 4, 8) if 8 % (data * expert) == 0]  # fmt: skip
    fitting = [each for each in layouts if each["fits"]]
    assert fitting and layouts[: len(fitting)] == fitting, "those that fit come first"
    assert [each["step_seconds"] for each in fitting] == sorted(each["step_seconds"] for each in fitting)
    for each in layouts:
        assert each["fits"] == ("reason" not in each)
        assert set(each["memory_bytes"]) == MEMORY and set(each["wire_bytes"]) == WIRE
        parts = sum(bytes for part, bytes in each["memory_bytes"].items() if part != "total")
        assert abs(parts - each["memory_bytes"]["total"]) <= 3, "rounding to whole bytes"
        assert abs(sum(each["bytes"] for each in each["collectives"]) - each["wire_bytes"]["total"]) <= len(each["collectives"])
        assert each["bound"] in ("compute", "wire", "memory") and each["step_seconds"] > 0


def test_what_goes_beyond_training_is_said():
    assert plan("switch-mini-8", "--devices", 8)["assumptions"] == []
    (words,) = plan("switch-mini-8", "--devices", 16)["assumptions"]
    assert "two hops" in words


def test_scaling_over_device_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(
        json.dumps({"step": step, "step_seconds": 0.1, "model_flops_utilization": 0.4,
                    "expert_load": {"encoder.1": [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]}}) + "\n" for step in range(1, 21)))
    done = switchyard("plan", "switch-mini-8", "--scaling", "1..8", "--batch", 16, "--measured", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)
    assert study["replayed_steps"] == 18
    for kind in ("weak", "strong"):
        assert [each["devices"] for each in study[kind]] == [1, 2, 4, 8]
        assert study[kind][0]["efficiency"] == 1.0 and study[kind][0]["seconds"]["wire"] == 0
    assert [each["batch_size"] for each in study["weak"]] == [16, 32, 64, 128]
    text = switchyard("plan", "switch-mini-8", "--scaling", "1..4", "--batch", 16)
    assert text.returncode == 0 and "strong scaling" in text.stdout
    for arguments in (["--scaling", "8"], ["--scaling", "8..2"], ["--scaling", "1..4", "--devices", 4],
                      ["--devices", 4, "--measured", tmp_path], ["--scaling", "1..4", "--measured", tmp_path / "absent"]):
        refused("plan", "switch-mini-8", *arguments)


def test_one_device_sends_nothing_and_holds_the_model():
    result = plan("switch-mini-8", "--devices", 1, "--memory", 16)
    (layout,) = result["layouts"]
    assert layout["wire_bytes"] == {"all_to_all": 0, "all_reduce": 0, "broadcast": 0, "total": 0}
    assert layout["memory_bytes"]["gradients"] == 4 * result["parameters"]


@pytest.mark.parametrize("device", ["tpu-v3", "h200"])
def test_memory_decides(device):
    small = plan("switch-xxl", "--devices", 64, "--device", device, "--memory", 8)
    assert not any(each["fits"] for each in small["layouts"])
    assert all(each["reason"] for each in small["layouts"])
    large = plan("switch-xxl", "--devices", 64, "--device", device, "--memory", 500)
    assert any(each["fits"] for each in large["layouts"])


def test_figures_of_a_device_can_be_replaced():
    usual = plan("t5-base", "--devices", 8)["layouts"][0]
    slow = plan("t5-base", "--devices", 8, "--bandwidth", 1, "--latency", 100)["layouts"][0]
    assert slow["seconds"]["wire"] > 10 * usual["seconds"]["wire"] and slow["bound"] == "wire"
    weak = plan("t5-base", "--devices", 8, "--flops", 10, "--efficiency", 0.25)
    assert weak["cluster"]["flops"] == 1e13
    assert weak["layouts"][0]["seconds"]["compute"] > 100 * usual["seconds"]["compute"]


def test_a_run_file_is_planned_as_it_is_trained(workshop):
    result = plan(workshop / "tiny.toml", "--devices", 2, "--device", "cpu")
    assert result["batch_size"] == 4 and result["encoder_length"] == 48 and result["dtype"] == "fp32"
    assert result["decoder_length"] == 12  # of 52 tokens 8 are noise, in 3 spans: 48 in, 12 out
    changed = plan(workshop / "tiny.toml", "--devices", 2, "--device", "cpu", "--set", "train.batch_size=16")
    assert changed["batch_size"] == 16
    text = switchyard("plan", workshop / "tiny.toml", "--device", "cpu", "--devices", 2)
    assert text.returncode == 0 and "data x exp x ten" in text.stdout and "new values to holders" in text.stdout


def test_the_table_says_why_others_fail():
    done = switchyard("plan", "switch-base-8", "--devices", 16, "--device", "tpu-v3", "--batch", 64)
    assert done.returncode == 0, done.stderr
    assert "not possible" in done.stdout and "of 12 heads leaves ranks without one" in done.stdout


@pytest.mark.parametrize("arguments, words", [
    (["switch-base-9", "--devices", 2], ["switch-base-9", "did you mean"]),
    (["switch-base-8"], ["--devices N"]),
    (["switch-base-8", "--devices", 0], ["--devices"]),
    (["switch-base-8", "--devices", 2, "--device", "h20"], ["h20", "did you mean"]),
    (["switch-base-8", "--devices", 2, "--memory", -1], ["--memory"]),
    (["switch-base-8", "--devices", 2, "--memory", "nan"], ["--memory"]),
    (["switch-base-8", "--devices", 2, "--efficiency", 2], ["--efficiency"]),
    (["switch-base-8", "--devices", 2, "--batch", 0], ["--batch"]),
    (["switch-base-8", "--devices", 2, "--encoder-length", 0], ["--encoder-length"]),
    (["switch-base-8", "--devices", 2, "--dtype", "fp8"], ["--dtype"]),
    (["switch-base-8", "--devices", 2, "--set", "train.steps=1"], ["--set", "run file"]),
    (["absent.toml", "--devices", 2], ["absent.toml"]),
])  # fmt: skip
def test_wrong_input_is_named(arguments, words):
    message = refused("plan", *arguments)
    assert all(word in message for word in words), message


def test_the_picture_is_an_svg_of_the_best_layout(tmp_path):
    path = tmp_path / "layout.svg"
    result = plan("switch-mini-8", "--devices", 8, "--batch", 64, "--picture", path)
    best = result["layouts"][0]
    root = xml.etree.ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    title = root.find("{http://www.w3.org/2000/svg}title").text
    assert title == f"Data {best['data']} x expert {best['expert']} x tensor {best['tensor']}"
    ranks = {each.get("data-rank") for each in root.iter() if each.get("data-panel") == "experts"}
    assert ranks == {str(rank) for rank in range(8)}


def test_one_layout_can_be_asked_for(tmp_path):
    result = plan("switch-mini-8", "--layout", "2x2x1", "--batch", 64)
    assert [(each["data"], each["expert"], each["tensor"]) for each in result["layouts"]] == [(2, 2, 1)]
    assert "--layout" in refused("plan", "switch-mini-8", "--layout", "2x2")
    assert "--layout" in refused("plan", "switch-mini-8", "--layout", "0x2x1")
    assert "--devices says 8" in refused("plan", "switch-mini-8", "--layout", "2x2x1", "--devices", 8)
