"""What the tests of the Python package share: the text, run file and program of the command tests, and a trained run."""

import importlib.util
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("command_tests", SOURCE / "tests/cli/conftest.py")
command_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(command_tests)

workshop = command_tests.workshop
metrics = command_tests.metrics


def program(*arguments, **options):
    """Standard output of the program, which must succeed."""
    done = command_tests.switchyard(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def run(workshop):
    """The folder of a run that the program trained."""
    out = workshop / "runs/program"
    program("train", workshop / "tiny.toml", "--out", out)
    return out
