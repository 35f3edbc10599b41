#!/usr/bin/env python3
"""What each run file of configs/ comes to with every default filled in, beside what is stored: a default that moves is seen.

    scripts/resolved_runs.py [--program PROGRAM] [--update]

Stored in configs/resolved.txt: first each key as most runs have it, then where a run has it otherwise. A run file that continues from a
model, or leaves the model to a script, is resolved with the preset switch-nano-8 in its place. --update writes the file.
"""

import argparse
import difflib
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORED = ROOT / "configs/resolved.txt"
BLANKS = {"preset": "switch-nano-8", "folder": "runs/study", "steps": "500", "seed": "0", "rate": "0.03"}  # of configs/study.toml


def run_files() -> list[pathlib.Path]:
    return sorted(path for path in (ROOT / "configs").rglob("*.toml") if path.parent.name != "tasks" and path.name != "ladder.toml")


def resolve(program: pathlib.Path, path: pathlib.Path) -> dict[str, str]:
    """Keys of the run as `section.key`, with paths from the project's root."""
    text = re.sub(r"\{(\w+)\}", lambda blank: BLANKS[blank[1]], path.read_text())
    # A copy beside the file, as paths are taken from its folder.
    with tempfile.NamedTemporaryFile("w", suffix=".toml", dir=path.parent) as copy:
        copy.write(text)
        copy.flush()
        call = [program, "train", copy.name, "--resolve"]
        if "preset" not in tomllib.loads(text).get("model", {}):
            call += ["--set", 'model.init=""', "--set", 'model.preset="switch-nano-8"']
        done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    if done.returncode:
        sys.exit(f"{path.relative_to(ROOT)}: {done.stderr}")
    keys, section = {}, ""
    beside = '"' + str(ROOT.parent).rstrip("/") + "/"
    for line in done.stdout.replace(f"{ROOT}/", "").replace(beside, '"../').splitlines():
        if title := re.match(r"\[+([a-z.]+)\]+$", line):
            section = title[1]
        elif line:
            key, _, value = line.partition(" = ")
            keys[f"{section}.{key}"] = value
    return keys


def describe(runs: dict[str, dict[str, str]]) -> str:
    keys = dict.fromkeys(key for run in runs.values() for key in run)
    usual = {key: Counter(run.get(key, "none") for run in runs.values()).most_common(1)[0][0] for key in keys}
    lines = ["[every run, unless below]", *(f"{key} = {value}" for key, value in usual.items())]
    for name, run in runs.items():
        lines += ["", f"[{name}]", *(f"{key} = {run.get(key, 'none')}" for key in keys if run.get(key, "none") != usual[key])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    now = describe({str(path.relative_to(ROOT)): resolve(options.program.resolve(), path) for path in run_files()})
    if options.update:
        STORED.write_text(now)
    stored = STORED.read_text() if STORED.exists() else ""
    if now != stored:
        sys.stdout.writelines(difflib.unified_diff(stored.splitlines(True), now.splitlines(True), "configs/resolved.txt", "now"))
        sys.exit("run files come to something else than configs/resolved.txt; if that is meant: scripts/resolved_runs.py --update")
    print(f"run files: {len(run_files())} come to what is stored")


if __name__ == "__main__":
    main()
