"""The loss of `switchyard distill` against the same composition of transformers' models: T5 beside a Switch teacher."""

import json
import subprocess

import models
import pytest
import torch
from compare import PROGRAM

ROWS = [{"sentence": text, "label": number % 2} for number, text in enumerate(
    ["a red lamp", "the old bridge in the harbour", "seven apples", "a long letter at the market", "her green coat", "the north gate"])]
WEIGHT, TEMPERATURE, Z_LOSS = 0.4, 2.0, 1e-3


def run(*arguments, **options):
    return subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distillation")
    sentences = [f"sst2 sentence: {row['sentence']} negative positive" for row in ROWS]
    (folder / "text.txt").write_text("\n".join(sentences * 20) + "\n")
    run("vocab", "train", "--text", folder / "text.txt", "--size", 40, "--out", folder / "spiece.model")
    models.save_model("t5", folder / "student", vocab_size=256, dropout_rate=0.0)
    models.save_model("switch", folder / "teacher", seed=2, vocab_size=256)
    (folder / "glue_sst2").mkdir()
    (folder / "glue_sst2/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "run.toml").write_text(f"""
[model]
init = "student"
[data]
task = "glue_sst2"
folder = "."
vocab = "spiece.model"
encoder_length = 64
decoder_length = 24
[train]
steps = 1
batch_size = {len(ROWS)}
dtype = "fp32"
z_loss = {Z_LOSS}
[distill]
teacher_weight = {WEIGHT}
temperature = {TEMPERATURE}
""")
    return folder


def padded(folder, texts, length):
    lines = run("vocab", "encode", "--vocab", folder / "spiece.model", input="\n".join(texts) + "\n").splitlines()
    ids = [[int(id) for id in line.split()] + [1] for line in lines]
    return torch.tensor([row + [0] * (length - len(row)) for row in ids])


def test_the_loss_is_that_of_transformers_models(folder):
    run("distill", folder / "run.toml", "--teacher", folder / "teacher", "--out", folder / "out", "--quiet")
    line = json.loads((folder / "out/metrics.jsonl").read_text().splitlines()[0])

    inputs = padded(folder, [f"sst2 sentence: {row['sentence']}" for row in ROWS], 64)
    labels = padded(folder, [["negative", "positive"][row["label"]] for row in ROWS], 24)
    labels[labels == 0] = -100
    with torch.no_grad():
        student, teacher = (
            models.load_model(folder / name)(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels).logits[labels >= 0]
            for name in ("student", "teacher"))
    hard = torch.nn.functional.cross_entropy(student, labels[labels >= 0])
    soft = -((teacher / TEMPERATURE).softmax(1) * (student / TEMPERATURE).log_softmax(1)).sum(1).mean()
    z_loss = Z_LOSS * student.logsumexp(1).square().mean()
    assert line["cross_entropy"] == pytest.approx(hard.item(), rel=1e-5)
    assert line["soft_cross_entropy"] == pytest.approx(soft.item(), rel=1e-5)
    total = (1 - WEIGHT) * hard + WEIGHT * TEMPERATURE**2 * soft + z_loss
    assert line["loss"] == pytest.approx(total.item(), rel=1e-5)
