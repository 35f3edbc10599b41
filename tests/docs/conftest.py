"""Runs the shell blocks of a document, in order, in one folder that stands for a checkout."""

import os
import pathlib
import random
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD_PROGRAM", SOURCE / "build/release/switchyard"))
sys.path.insert(0, str(SOURCE / "scripts"))


def sections(document):
    """A document's fenced blocks without a language or with `sh`, by the title of their section."""
    found = {}
    for section in re.split(r"^##+ ", document, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        if blocks:
            found[section.splitlines()[0]] = blocks
    return found


def checkout(folder):
    """A folder where `build/release/switchyard`, scripts and configs are those of this build; runs are made in it."""
    (folder / "build/release").mkdir(parents=True)
    (folder / "build/release/switchyard").symlink_to(PROGRAM)
    for name in ("scripts", "configs", "examples"):
        (folder / name).symlink_to(SOURCE / name)
    return folder


def run_block(block, folder, replaced):
    """Runs a block by bash with `replaced` (text: smaller text), each of which must occur. Returns its output."""
    for text, smaller in replaced.items():
        assert text in block, f"{text!r} is not in the block any more:\n{block}"
        block = block.replace(text, smaller)
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_text(path, sentences, seed):
    """Sentences of a small grammar with coined words: enough for a vocabulary of 200 pieces."""
    draw = random.Random(seed)
    syllables = ["ba", "ro", "mi", "ten", "sul", "ka", "ver", "do", "lin", "pa", "gor", "fe"]
    coined = ["".join(draw.choice(syllables) for _ in range(3)) for _ in range(300)]
    things = ["a red lamp", "the old bridge", "seven apples", "a long letter", "the north gate", "her green coat"]
    lines = [f"{draw.choice(['Ada', 'Bruno', 'Carla'])} {draw.choice(['found', 'sold', 'painted'])} {draw.choice(things)} of {draw.choice(coined)}."
             for _ in range(sentences)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line + "\n" * (number % 6 == 5) for number, line in enumerate(lines)) + "\n")
