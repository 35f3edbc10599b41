"""scripts/manual.py: a manual page that groff takes without a warning and that says what --help says."""

import re
import shutil
import subprocess
import sys

import pytest
from command_lines import Program
from conftest import PROGRAM, SOURCE


@pytest.fixture(scope="module")
def page():
    return subprocess.run([sys.executable, SOURCE / "scripts/manual.py", PROGRAM], capture_output=True, text=True, check=True).stdout


def shown(page):
    """The page as a terminal of 300 columns has it, words with one space between them."""
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    done = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-rLL=300n", "-P-c"], input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return " ".join(re.sub(".\b", "", done.stdout).split())


def test_every_option_of_every_command_is_there(page):
    text, program, calls = shown(page), Program(PROGRAM), [[]]
    while calls:
        call = calls.pop()
        known = program.help_of(call)
        calls += [[*call, command] for command in known.commands]
        for line in known.text.splitlines() if call else []:
            said = " ".join(line.removeprefix("Example:").removeprefix("Examples:").removeprefix("Usage:").split())
            assert said in text or said in ("Options:", "Positionals:", "Subcommands:") or known.commands, f"{call}: {said}"


def test_every_run_key_is_there(page):
    text = shown(page)
    for section, keys in Program(PROGRAM).keys.items():
        assert section == "routing" or f"[{section}]" in text
        assert all(f" {key} = " in text for key in keys)


def test_roff_is_not_read_into_the_text():
    sys.path.insert(0, str(SOURCE / "scripts"))
    import manual

    assert manual.escape(".bin") == "\\&.bin" and manual.escape("a\\b --c") == "a\\eb \\-\\-c"
