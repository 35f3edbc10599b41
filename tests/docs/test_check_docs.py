"""The check of documents finds what it is there for."""

import pytest
from conftest import PROGRAM

import check_docs
from command_lines import Program, calls_in


@pytest.fixture(scope="module")
def program():
    return Program(PROGRAM)


@pytest.mark.parametrize(
    "line, fault",
    [
        ("switchyard trian run.toml", "no such command: switchyard trian"),
        ("switchyard train run.toml --outt x", "has no --outt"),
        ("switchyard train run.toml --out x --set train.step=1", "no such run key: train.step"),
        ("switchyard compare a.toml b.toml", "--out is missing"),
        ("switchyard plan --devices 8", "model is missing"),
        ("switchyard plan switch-c --devices many", "not INT"),
        ("switchyard plan switch-c --dtype fp16", "one of bf16,fp32"),
        ("switchyard inspect switch-c t5-base", "not expected: t5-base"),
        ("switchyard generate --model m --json 3", "not expected: 3"),
        ("switchyard serve --model m --port 70000", "outside [0 - 65535]"),
        ("switchyard eval --model", "needs a value"),
        ("switchyard vocab --json", "a command is missing"),
    ],
)
def test_faulty_commands(program, line, fault):
    assert any(fault in found for found in check_docs.line_faults(program, line)), line


@pytest.mark.parametrize(
    "line",
    [
        "switchyard compare a.toml b.toml --out x --minutes 1.5  # twins",
        "mpirun -n 4 build/release/switchyard train run.toml --out runs/b --set parallel.expert=4 --set train.steps=9",
        "echo 'A <extra_id_0>.' | switchyard vocab encode --vocab spiece.model >ids.txt",
        "switchyard eval --model m --text a.txt b.txt --json",
    ],
)
def test_sound_commands(program, line):
    assert len(calls_in(line)) == 1
    assert check_docs.line_faults(program, line) == []


def test_run_files(program):
    assert check_docs.run_file_faults(program, "```toml\n[train]\nstep = 3\n[trian]\n```") == [
        "no such section of a run file: [trian]", "no such run key: train.step"]
    shown = "cat > run.toml <<'END'\n[data]\ntext = []\n[[data.mixture]]\nrates = 1\nEND\n"
    assert check_docs.run_file_faults(program, shown) == ["no such run key: data.mixture.rates"]
    assert "TOML: " in check_docs.run_file_faults(program, "```toml\nsteps = {steps}\n```")[0]


def test_paths_and_figures():
    assert check_docs.missing_paths("see `src/ops/nothing.h` and scripts/none.py", code_only=True) == [
        "no such file: src/ops/nothing.h", "no such file: scripts/none.py"]
    assert check_docs.missing_paths("see `ops/{route,router}.h`, `train/step`, tests/TARGET", code_only=True) == ["no such file: ops/route.h"]
    assert check_docs.script_faults("scripts/study_learning.py --rate 3") == ["scripts/study_learning.py has no --rate"]
    table = "## Speed\n\n| a | b |\n|---|---|\n"
    assert len(check_docs.figure_faults(table)) == 1
    assert check_docs.figure_faults(table + "`make bench ARGS=x`") == []


def test_commits():
    if check_docs.commit_faults("`git show 0000000`"):  # a checkout with its history
        assert check_docs.commit_faults("`git show 0000000`") == ["no such commit: 0000000"]
    assert check_docs.commit_faults("`git show HEAD`") == []
