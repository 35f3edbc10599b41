"""Wrong input of every kind: exit code 2, one message that says what and where, and nothing lost."""

import resource
import shutil
import signal

import pytest

from conftest import metrics, refused, switchyard


def train(workshop, out, *settings, **options):
    flags = [word for setting in settings for word in ("--set", setting)]
    return refused("train", workshop / "tiny.toml", "--out", out, *flags, **options)


def test_missing_text(workshop, tmp_path):
    message = train(workshop, tmp_path / "run", 'data.text=["no-such-file.txt"]')
    assert "no-such-file.txt" in message


def test_empty_text(workshop, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    message = train(workshop, tmp_path / "run", f'data.text=["{tmp_path}/empty.txt"]')
    assert "empty.txt" in message


def test_text_that_is_not_utf8(workshop, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"a good line\nun caf\xe9 noir\n" * 50)
    message = train(workshop, tmp_path / "run", f'data.text=["{tmp_path}/latin.txt"]')
    assert "latin.txt" in message and "UTF-8" in message and "2" in message


def test_too_little_text_for_one_example(workshop, tmp_path):
    (tmp_path / "short.txt").write_text("Ada found a red lamp.\n")
    message = train(workshop, tmp_path / "run", f'data.text=["{tmp_path}/short.txt"]')
    assert "token" in message


def test_misspelt_key_names_the_nearest(workshop, tmp_path):
    assert "batch_size" in train(workshop, tmp_path / "run", "train.batchsize=4")
    assert "num_experts" in train(workshop, tmp_path / "run", "model.num_expert=4")
    assert "optimizer" in train(workshop, tmp_path / "run", "optimiser.name=adamw")


def test_run_file_errors_name_file_and_line(workshop, tmp_path):
    (tmp_path / "broken.toml").write_text("[model]\npreset = \n")
    assert "broken.toml:2" in refused("train", tmp_path / "broken.toml", "--out", tmp_path / "run")
    (tmp_path / "typo.toml").write_text((workshop / "tiny.toml").read_text().replace("eval_every", "eval_evry"))
    message = refused("train", tmp_path / "typo.toml", "--out", tmp_path / "run")
    assert "typo.toml:" in message and "eval_every" in message
    assert "no.toml" in refused("train", tmp_path / "no.toml", "--out", tmp_path / "run")


@pytest.mark.parametrize("setting, word", [
    ("train.dtype=fp8", "fp8"), ("train.steps=0", "steps"), ("train.steps=many", "steps"),
    ("train.micro_batch_size=3", "micro_batch_size"), ("optimizer.name=sgdd", "sgdd"), ("model.preset=switch-mini-9", "switch-mini-8"),
    ("data.decoder_length=3", "decoder_length"), ("model.d_model=-4", "d_model"), ("model.num_experts=0", "num_experts"),
])
def test_values_out_of_range(workshop, tmp_path, setting, word):
    assert word in train(workshop, tmp_path / "run", setting)


def test_vocabulary_that_does_not_fit_the_model(workshop, tmp_path):
    done = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "small", "--set", "train.steps=2")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "small" / "checkpoints" / "step-000002"
    done = switchyard("vocab", "train", "--text", workshop / "train.txt", "--size", 300, "--out", tmp_path / "large.model")
    assert done.returncode == 0, done.stderr
    run = (workshop / "tiny.toml").read_text().replace('preset = "switch-tiny-4"', f'init = "{model}"')
    for name in ("train.txt", "held.txt"):
        shutil.copy(workshop / name, tmp_path / name)
    (tmp_path / "continue.toml").write_text(run.replace("spiece.model", "large.model"))
    message = refused("train", tmp_path / "continue.toml", "--out", tmp_path / "run")
    assert "large.model" in message and "rows" in message


def test_damaged_vocabulary(workshop, tmp_path):
    (tmp_path / "bad.model").write_bytes((workshop / "spiece.model").read_bytes()[:500])
    assert "bad.model" in train(workshop, tmp_path / "run", f'data.vocab="{tmp_path}/bad.model"')


def test_existing_run_is_not_overwritten(workshop, tmp_path):
    out = tmp_path / "run"
    assert switchyard("train", workshop / "tiny.toml", "--out", out, "--set", "train.steps=3").returncode == 0
    before = (out / "metrics.jsonl").read_bytes()
    message = train(workshop, out)
    assert "--resume" in message
    assert (out / "metrics.jsonl").read_bytes() == before


def test_damaged_newest_checkpoint_is_named(workshop, tmp_path):
    out = tmp_path / "run"
    assert switchyard("train", workshop / "tiny.toml", "--out", out).returncode == 0
    weights = out / "checkpoints" / "step-000012" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    message = refused(
        "train", workshop / "tiny.toml", "--out", out, "--resume", "--set", "train.steps=20")
    assert "step-000012" in message and "model.safetensors" in message


def test_foreign_checkpoint(workshop, tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    (folder / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    message = refused("inspect", folder)
    assert "llama" in message
    message = refused("inspect", tmp_path / "nowhere")
    assert "nowhere" in message


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit then fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_full_disk_keeps_what_was_saved(workshop, tmp_path):
    out = tmp_path / "run"
    assert switchyard("train", workshop / "tiny.toml", "--out", out, "--set", "train.steps=5").returncode == 0
    saved = {path: path.read_bytes() for path in (out / "checkpoints" / "step-000005").rglob("*") if path.is_file()}
    message = refused("train", workshop / "tiny.toml", "--out", out, "--resume", preexec_fn=limit_file_size, restore_signals=False)
    assert "cannot write" in message
    assert all(path.read_bytes() == data for path, data in saved.items())
    assert switchyard("train", workshop / "tiny.toml", "--out", out, "--resume").returncode == 0
    assert max(line["step"] for line in metrics(out)) == 12


def test_non_finite_loss_stops_with_step_and_saved_state(workshop, tmp_path):
    done = switchyard("train", workshop / "tiny.toml", "--out", tmp_path / "run", "--set", "train.steps=60", "--set",
                      "train.z_loss=1e38")
    assert done.returncode == 2, done.stderr
    assert "step" in done.stderr and "not finite" in done.stderr
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_wrong_usage():
    assert switchyard("trian").returncode == 2
    assert switchyard().returncode == 2
    assert switchyard("generate").returncode == 2
    for command in ("train", "vocab", "generate", "eval", "inspect", "forward", "bench", "report", "compare", "convert"):
        done = switchyard(command, "--help")
        assert done.returncode == 0 and "xample" in done.stdout, command
