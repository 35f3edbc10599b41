"""scripts/completion.py: what bash offers behind a few beginnings of a command line."""

import subprocess
import sys

import pytest
from conftest import PROGRAM, SOURCE


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "switchyard"
    path.write_text(subprocess.run([sys.executable, SOURCE / "scripts/completion.py", PROGRAM], capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.parametrize(
    "line, offered",
    [
        (["gen"], ["generate"]),
        (["vocab", "en"], ["encode"]),
        (["train", "run.toml", "--allow"], ["--allow-changes"]),
        (["bench", "rout"], ["routing"]),
        (["generate", "--model", "m", "--kernels", "ref"], ["reference"]),
        (["inspect", "spiece"], ["spiece.model"]),
    ],
)
def test_offers(script, tmp_path, line, offered):
    (tmp_path / "spiece.model").touch()
    words = " ".join(f"'{word}'" for word in ["switchyard", *line])
    asked = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line)}; _switchyard; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered
