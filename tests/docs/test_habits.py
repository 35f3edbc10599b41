"""One version everywhere; the hook runs what the Makefile has."""

import re
import subprocess

from conftest import PROGRAM, SOURCE


def test_version():
    version = re.search(r"project\(switchyard VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text())[1]
    assert re.search(r"^## (\S+)", (SOURCE / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
    assert subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout.strip() == version
    python = SOURCE / "pyproject.toml"
    written = re.search(r'^version = "(\S+)"', python.read_text(), re.MULTILINE) if python.exists() else None
    assert written is None or written[1] == version


def test_hook_runs_a_target_of_the_makefile():
    entry = re.search(r"entry: make (\w+)", (SOURCE / ".pre-commit-config.yaml").read_text())[1]
    assert re.search(rf"^{entry}:.*##", (SOURCE / "Makefile").read_text(), re.MULTILINE)
