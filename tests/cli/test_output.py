"""What commands print, and what they say when it cannot be printed or was misspelt."""

import json
import os
import subprocess

import pytest

from conftest import PROGRAM, refused, switchyard


@pytest.mark.parametrize("arguments", [
    ["--help"], ["--version"], ["inspect", "switch-base-8"], ["inspect", "switch-base-8", "--json"], ["train", "--help-config"],
])  # fmt: skip
def test_a_full_disk_is_an_error(arguments):
    with open("/dev/full", "w") as full:
        done = switchyard(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith("switchyard: standard output cannot be written")


def test_a_closed_pipe_is_an_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = switchyard("inspect", "switch-base-8", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 1 and "standard output cannot be written" in done.stderr


@pytest.mark.parametrize("words, name, nearest", [
    (["trian", "run.toml"], "trian", "train"), (["evla"], "evla", "eval"), (["vocab", "encoed"], "encoed", "encode"),
])  # fmt: skip
def test_an_unknown_command_is_named_with_the_nearest(words, name, nearest):
    message = refused(*words)
    assert f'unknown command "{name}"' in message and f'did you mean "{nearest}"' in message


def test_a_byte_piece_is_one_byte(workshop, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    text = tmp_path / "plain.txt"
    text.write_text((workshop / "train.txt").read_text())
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "bytes"), vocab_size=400, byte_fallback=True, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=3)  # fmt: skip
    out = tmp_path / "run"
    done = switchyard("train", workshop / "tiny.toml", "--out", out, "--quiet", "--set", "train.steps=1",
                      "--set", f'data.vocab="{tmp_path}/bytes.model"')  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = tmp_path / "held.txt"
    held.write_text("語彙外文字列" * 200 + "\n")  # no character of it was in the text: every token is a byte
    done = switchyard("eval", "--model", out, "--text", held, "--encoder-length", "48", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0.5 * result["tokens"] < result["bytes"] <= result["tokens"]
