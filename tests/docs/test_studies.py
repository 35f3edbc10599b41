"""scripts/study_downstream.py with made-up evaluations in place of runs: which runs it asks for, and what its tables come to."""

import argparse
import json
import re
import sys

import pytest
from conftest import PROGRAM, SOURCE

sys.path.insert(0, str(SOURCE / "scripts"))
import study_downstream  # noqa: E402


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Fine-tuning on SST-2 gives 80 from pre-trained weights, 70 from random ones, a point more with seed 1, and most at the rate 0.03; held-out
    losses are 5.0 dense, 4.8 of teachers, 4.9 of students."""
    (tmp_path / "bench/results").mkdir(parents=True)
    monkeypatch.setattr(study_downstream, "ROOT", tmp_path)
    monkeypatch.setattr(study_downstream, "PROGRAM", str(PROGRAM))
    monkeypatch.setattr(study_downstream.study_learning, "prepare", lambda data, out: None)
    asked = []

    def train(self, command, config, name, settings, steps):
        asked.append(name)
        if not name.startswith("fine_tuned"):
            loss = 4.8 if name.startswith("teachers") else 5.0 if "hard" in name or "dense" in name else 4.9
            return [{"step": steps // 2, "eval_loss": 6.0}, {"step": steps, "eval_loss": loss}]
        task, start, rate, seed = re.match(r"fine_tuned/(\w+)/\w+-(pre-trained|random)-([\d.]+)-(\d)$", name).groups()
        score = (80 if start == "pre-trained" else 70) + (int(seed) if int(seed) < 2 else 0) - (5 if float(rate) != 0.03 else 0)
        metrics = next(each for each in study_downstream.TASKS if each.name == task).metrics
        return [{"step": step, **{f"eval_{task}_{metric}": score - 10 * (step < steps) for metric in metrics}} for step in (steps // 2, steps)]

    monkeypatch.setattr(study_downstream.Study, "train", train)
    monkeypatch.setattr(study_downstream.Study, "parameters", lambda self, name: 2_000_000 if "students" in name else 8_000_000)
    monkeypatch.setattr(study_downstream.Study, "most_frequent_label", lambda self, task: 57.4)
    options = argparse.Namespace(out=tmp_path / "out", data=tmp_path, threads=1, seeds=study_downstream.SEEDS, pretraining_steps=study_downstream.PRETRAINING_STEPS,
                                 tasks=[task.name for task in study_downstream.TASKS],
                                 models=list(study_downstream.PRESETS))
    return study_downstream.Study(options), asked, tmp_path


def test_fine_tuning(study, capsys):
    made, asked, folder = study
    made.fine_tuning()
    said = capsys.readouterr().out
    assert "| switch-nano-8, pre-trained | 80.5 ± 0.5 |" in said and "| t5-nano, random | 70.5 ± 0.5 |" in said
    assert "| the most frequent label | 57.4 |" in said
    tables = [name for name in asked if not name.endswith(f"-{study_downstream.SWEEP_SEED}") and name.startswith("fine_tuned")]
    assert tables and all("-0.03-" in name for name in tables), "the best rate of the sweep"
    assert not any("squad" in name and "random" in name for name in asked)
    assert json.loads((folder / "bench/results/fine_tuning.json").read_text())["rates"]["t5-nano, random"] == 0.03
    assert "80.5 ± 0.5" in (folder / "out/fine_tuning/report.html").read_text()


def test_distillation(study, capsys):
    made, asked, folder = study
    made.distillation()
    said = capsys.readouterr().out
    assert "| both | 4.9000 ± 0.0000 | 50 ± 0 |" in said
    assert "| 32 experts | 8.00 M | 75 | 4.8000 | 4.9000 ± 0.0000 | 50 ± 0 |" in said
    assert (folder / "out/distillation/report.html").exists()
    assert len([name for name in asked if name.startswith("students/both")]) == 6
