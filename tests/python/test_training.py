"""switchyard.train: a run as the program trains it, step by step, to the last bit."""

import _thread
import logging
import subprocess
import sys
import threading
import tomllib

import pytest
import torch
from conftest import metrics

import switchyard


def tensors(folder):
    import safetensors.torch
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_steps_are_the_programs(run, workshop):
    out = workshop / "runs/python"
    steps = list(switchyard.train(workshop / "tiny.toml", out=out))
    assert [step.number for step in steps] == list(range(1, 13))
    assert metrics(out) == metrics(run)
    lines = [line for line in metrics(out) if "loss" in line]
    assert [step.loss for step in steps] == [line["loss"] for line in lines]
    assert [step.metrics["dropped_fraction"] for step in steps] == [line["dropped_fraction"] for line in lines]
    assert [step.number for step in steps if step.evaluation] == [5, 10, 12]
    assert steps[-1].checkpoint == out / "checkpoints/step-000012"
    expected, trained = tensors(run / "checkpoints/step-000012"), tensors(steps[-1].checkpoint)
    assert all(torch.equal(expected[name], trained[name]) for name in expected)


def test_config_may_be_a_dict(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    config = tomllib.loads((workshop / "tiny.toml").read_text())
    config["train"]["steps"] = 3
    training = switchyard.train(config, out=workshop / "runs/dict", settings=["train.save_every=0"])
    assert training.num_steps == 3 and training.num_parameters > 1000 and "save_every = 0" in training.run_toml
    checkpoint = training.run()
    assert training.steps_done == 3 and checkpoint == workshop / "runs/dict/checkpoints/step-000003"
    assert training.model().generate("Ada found", max_tokens=3).ids


def test_resume_goes_on_to_the_same_end(run, workshop):
    out = workshop / "runs/resumed"
    for step in switchyard.train(workshop / "tiny.toml", out=out, callbacks=lambda training, step: step.number == 7 and training.stop()):
        pass
    assert step.number == 7
    rest = list(switchyard.train(workshop / "tiny.toml", out=out, resume=True))
    assert rest[0].number == 8 and metrics(out) == metrics(run)


def test_callbacks_see_every_step_in_order(workshop):
    seen = []
    callbacks = [lambda training, step: seen.append((training.steps_done, step.number, "a")), lambda _, step: seen.append("b")]
    switchyard.train(workshop / "tiny.toml", out=workshop / "runs/calls", settings=["train.steps=2"], callbacks=callbacks).run()
    assert seen == [(1, 1, "a"), "b", (2, 2, "a"), "b"]


def test_training_needs_no_leave_for_gradients(workshop):
    """A caller's no_grad or inference_mode is not training's."""
    losses = []
    for number, mode in enumerate((torch.enable_grad, torch.no_grad, torch.inference_mode)):
        with mode():
            steps = list(switchyard.train(workshop / "tiny.toml", out=workshop / f"runs/mode{number}", settings=["train.steps=3"]))
        losses.append([step.loss for step in steps])
    assert losses[0] == losses[1] == losses[2] and losses[0][0] != losses[0][2]


def test_errors_are_the_programs(workshop, run):
    for config, settings, message in [
        (workshop / "none.toml", [], "none.toml"),
        (workshop / "tiny.toml", ["train.stepz=3"], r'train.stepz: unknown key.*did you mean "steps"'),
        ({"train": {"steps": "many"}}, [], "train.steps: expected"),
        ({"train": 3}, [], "train: expected a dict"),
        ({"trian": {}}, [], r"unknown section \[trian\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            switchyard.train(config, out=workshop / "runs/refused", settings=settings)
    with pytest.raises(ValueError, match="--resume|resume"):
        switchyard.train(workshop / "tiny.toml", out=run)


def test_interrupt_saves(workshop):
    out = workshop / "runs/interrupted"
    def interrupt(training, step):
        if step.number == 3:
            _thread.interrupt_main()
    training = switchyard.train(workshop / "tiny.toml", out=out, callbacks=interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert (out / "latest").exists() and training.steps_done in (3, 4)
    assert (out / f"checkpoints/step-{training.steps_done:06}").exists()


def test_what_libraries_say_goes_to_the_logger(workshop, caplog, capfd):
    with caplog.at_level(logging.INFO, "switchyard"):
        switchyard.Vocabulary.train([workshop / "train.txt"], 120, workshop / "small.model")
    assert "training 120 pieces" in caplog.text and "training" not in capfd.readouterr().err
    assert len(switchyard.Vocabulary.load(workshop / "small.model")) == 220


def test_under_torchrun_ranks_train_together(workshop, tmp_path):
    groups = "routing.group_size=48"  # a sequence each, so that two ranks can share a step
    alone = list(switchyard.train(workshop / "tiny.toml", out=workshop / "runs/alone", settings=[groups]))
    script = tmp_path / "ranks.py"
    script.write_text(f"""
import os, pathlib, switchyard
settings = [{groups!r}, "parallel.expert=2"]
steps = list(switchyard.train({str(workshop / 'tiny.toml')!r}, out={str(workshop / 'runs/ranks')!r}, settings=settings))
pathlib.Path({str(tmp_path)!r}, "rank" + os.environ["RANK"]).write_text(f"{{steps[-1].number}} {{steps[-1].loss}}")
""")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [(tmp_path / f"rank{rank}").read_text().split() for rank in range(2)]
    assert lines[0] == lines[1] and lines[0][0] == "12"
    assert float(lines[0][1]) == pytest.approx(alone[-1].loss, rel=1e-5)
