"""An installed Switchyard as another project's library: examples/fill_blank, built on it, does what the program does."""

import json
import os
import pathlib
import subprocess

import pytest

from conftest import SOURCE, switchyard

BUILD = pathlib.Path(os.environ.get("SWITCHYARD_BUILD", SOURCE / "build/release"))
SENTENCE = "Ada found <extra_id_0> in the harbour of <extra_id_1>."
WORDS = ["a red lamp", "the old bridge", "purple"]


def run(*command, **options):
    environment = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, env=environment, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """An installation that was moved after it was made: nothing in it may know its first place."""
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "--install", BUILD, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "prefix")


@pytest.fixture(scope="module")
def model(workshop, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "run"
    done = switchyard("train", workshop / "tiny.toml", "--out", out, "--set", "train.steps=2")
    assert done.returncode == 0, done.stderr
    return out / "checkpoints" / "step-000002"


@pytest.fixture(scope="module")
def example(prefix, tmp_path_factory):
    build = tmp_path_factory.mktemp("example")
    run("cmake", "-S", SOURCE / "examples/fill_blank", "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build)
    return build / "fill_blank"


def test_example_gives_what_the_program_gives(example, model):
    filled, *scores = run(example, model, SENTENCE, *WORDS).splitlines()
    answer = switchyard("generate", "--model", model, "--prompt", SENTENCE, "--json", "--max-tokens", 16)
    assert filled == json.loads(answer.stdout)["filled"] != SENTENCE
    lines = "".join(f"{SENTENCE}\t<extra_id_0> {words}\n" for words in WORDS)
    answers = switchyard("generate", "--model", model, "--score", "--json", input=lines).stdout.splitlines()
    expected = [json.loads(line)["score"] for line in answers]
    assert len(set(expected)) == len(WORDS)
    assert [line.split("\t")[1] for line in scores] == WORDS
    assert [float(line.split("\t")[0]) for line in scores] == pytest.approx(expected, rel=1e-6)


def test_errors_of_the_library_reach_the_caller(example, tmp_path):
    done = subprocess.run([example, tmp_path, SENTENCE], capture_output=True, text=True)
    assert done.returncode == 2 and str(tmp_path) in done.stderr


def test_sentencepiece_is_loaded_before_torch(example):
    """The other order lets SentencePiece write over libc10's variables."""
    needed = [line.split("[")[1] for line in run("readelf", "-d", example).splitlines() if "NEEDED" in line]
    position = {name: next(place for place, library in enumerate(needed) if library.startswith(name))
                for name in ("libsentencepiece.so", "libc10.so", "libtorch_cpu.so")}
    assert position["libsentencepiece.so"] < min(position["libc10.so"], position["libtorch_cpu.so"])


def test_installed_program_runs(prefix):
    assert "generate" in run(prefix / "bin/switchyard", "--help")


def test_another_torch_is_refused(prefix, tmp_path):
    header = tmp_path / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n")
    (tmp_path / "torch/lib").mkdir()
    (tmp_path / "torch/lib/libtorch_cpu.so").touch()
    done = subprocess.run(["cmake", "-S", SOURCE / "examples/fill_blank", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}",
                           f"-DTORCH_WHEEL_DIR={tmp_path}/torch"], capture_output=True, text=True)
    assert done.returncode != 0 and "built with torch" in " ".join(done.stderr.split())
