"""Distillation: a dense student beside a sparse teacher."""

import json

import pytest
from safetensors.numpy import load_file

from conftest import metrics, refused, switchyard


@pytest.fixture(scope="module")
def taught(workshop, tmp_path_factory):
    """A sparse teacher, a dense baseline of hard labels alone, and a run file without [model] preset."""
    folder = tmp_path_factory.mktemp("distillation")
    text = (workshop / "tiny.toml").read_text()
    for name in ("train.txt", "held.txt", "spiece.model"):
        (folder / name).write_bytes((workshop / name).read_bytes())
    (folder / "teacher.toml").write_text(text.replace("steps = 12", "steps = 150"))
    (folder / "baseline.toml").write_text(text.replace("switch-tiny-4", "t5-tiny").replace("steps = 12", "steps = 40"))
    (folder / "student.toml").write_text(text.replace('preset = "switch-tiny-4"', "").replace("steps = 12", "steps = 40"))
    for name in ("teacher", "baseline"):
        done = switchyard("train", folder / f"{name}.toml", "--out", folder / name, "--quiet")
        assert done.returncode == 0, done.stderr
    return folder


def weights(run):
    return load_file(run / "checkpoints" / (run / "latest").read_text().strip() / "model.safetensors")


def test_the_student_learns_from_the_teacher_and_resumes_exactly(taught):
    arguments = ["distill", taught / "student.toml", "--teacher", taught / "teacher"]
    done = switchyard(*arguments, "--out", taught / "student", "--json", "--set", f"distill.baseline={taught / 'baseline'}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["student_parameters"] < report["teacher_parameters"]
    assert report["compression"] == pytest.approx(1 - report["student_parameters"] / report["teacher_parameters"])
    for name in ("student", "teacher", "baseline"):
        scored = switchyard("eval", "--model", taught / name, "--json")
        assert report[name] == pytest.approx(json.loads(scored.stdout)["loss"], abs=1e-4), name
    kept = (report["student"] - report["baseline"]) / (report["teacher"] - report["baseline"])
    assert report["gain_kept"] == pytest.approx(kept)
    whole = metrics(taught / "student")
    assert whole[0]["soft_cross_entropy"] > 0
    line = whole[0]
    z_loss = line["loss"] - 0.75 * line["cross_entropy"] - 0.25 * line["soft_cross_entropy"]
    assert 0 < z_loss < 0.05 * line["loss"], "the rest is the z-loss of the output"
    switchyard(*arguments, "--out", taught / "cut", "--quiet", "--set", "train.steps=15")
    done = switchyard(*arguments, "--out", taught / "cut", "--quiet", "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(taught / "cut") == whole
    assert "teacher_weight: 0.25 -> 0.5" in refused(*arguments, "--out", taught / "cut", "--resume", "--set", "distill.teacher_weight=0.5")


def test_the_student_starts_with_what_its_teacher_has_outside_experts(taught):
    done = switchyard("distill", taught / "student.toml", "--teacher", taught / "teacher", "--out", taught / "start", "--quiet",
                      "--set", "train.steps=1", "--set", "optimizer.learning_rate=0")
    assert done.returncode == 0, done.stderr
    teacher, student = weights(taught / "teacher"), weights(taught / "start")
    fresh = []
    for name, tensor in student.items():
        there = teacher.get(name.replace(".DenseReluDense.", ".mlp."))
        if there is None:
            fresh.append(name)
        else:
            assert (there == tensor).all(), name
    assert sorted(fresh) == [f"{stack}.block.1.layer.{layer}.DenseReluDense.{side}.weight"
                             for stack, layer in (("decoder", 2), ("encoder", 1)) for side in ("wi", "wo")]


def test_a_student_learns_from_kept_answers_without_its_teacher(taught):
    """The answers are made once: a run that was cut short and other students read the same files."""
    folder = taught / "runs"

    def distill(out, *more, teacher="teacher", top_k=8):
        keep = ["--cache-teacher", top_k] if top_k else []
        # One thread: with two on a busy machine libtorch's fp32 products moved a gradient's last bits once in sixty runs.
        return ["distill", taught / "student.toml", "--teacher", taught / teacher, "--out", folder / out, "--quiet", "--threads", 1, *keep,
                "--set", "distill.inherit=false", "--set", 'model.preset="t5-tiny"', *more]

    for arguments in (distill("whole"), distill("live", top_k=0)):
        done = switchyard(*arguments)
        assert done.returncode == 0, done.stderr
    cache = next((folder / ".cache").glob("teacher-*"))
    files = sorted(cache.glob("steps-*.safetensors"))
    assert len(files) == 3, "40 steps, 16 a file"
    made = [file.stat().st_mtime_ns for file in files]
    whole = metrics(folder / "whole")
    last = [[line for line in run if "cross_entropy" in line][-1]["cross_entropy"] for run in (whole, metrics(folder / "live"))]
    assert last[0] == pytest.approx(last[1], rel=0.02)

    switchyard(*distill("cut", "--set", "train.steps=15"))
    files[1].unlink()
    done = switchyard(*distill("cut", "--resume"))
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "cut") == whole
    assert [file.stat().st_mtime_ns for file in files][::2] == made[::2] and files[1].exists(), "only what is missing is made"

    there = ["--set", f'distill.cache="{cache}"']
    assert "train.seed: 0 -> 1" in refused(*distill("refused", *there, "--set", "train.seed=1"))
    assert "distill.cache_top_k: 8 -> 9" in refused(*distill("refused", *there, top_k=9))
    assert "teacher.model.safetensors" in refused(*distill("refused", *there, teacher="baseline"))
    assert "cache_top_k = 8 wants a teacher" in refused("train", taught / "baseline.toml", "--out", folder / "refused", "--set", "distill.cache_top_k=8")
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"x")
    message = refused(*distill("damaged"))
    assert "damaged" in message and files[0].name in message


def test_what_does_not_fit_is_named(taught):
    run, out = taught / "student.toml", taught / "refused"
    assert "--teacher MODEL" in refused("distill", run, "--out", out)
    message = refused("distill", run, "--teacher", taught / "teacher", "--out", out, "--set", "model.d_ff=64")
    assert "d_ff" in message or "DenseReluDense" in message or "mlp" in message, message
    assert "inherit = false" in message
    assert "teacher_weight" in refused("distill", run, "--teacher", taught / "teacher", "--out", out, "--set", "distill.teacher_weight=2")
    assert "temperature" in refused("distill", run, "--teacher", taught / "teacher", "--out", out, "--set", "distill.temperature=0")
    assert "absent" in refused("distill", run, "--teacher", taught / "absent", "--out", out)
    done = switchyard("distill", run, "--teacher", taught / "teacher", "--out", taught / "other_sizes", "--quiet", "--set", "model.d_ff=64",
                      "--set", "distill.inherit=false", "--set", "train.steps=2")
    assert done.returncode == 0, done.stderr
