#!/usr/bin/env python3
"""Checks that what README.md, docs/ and every command's --help name exists.

    scripts/check_docs.py [PROGRAM]

Paths into the project (scripts/fuzz.sh, model/config.h, [design](docs/design.md)), targets of make, and, with PROGRAM,
commands of the program and their options. A path is one into the project if it begins with one of its folders, or with one of src/.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MADE = {"build", "runs", "quickstart"}  # by commands that the documents show
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - MADE - {".venv", ".git", ".cache"}
MODULES = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}

PATH = re.compile(r"(?<![\w./:<~$-])((?:\.?[\w-]+)(?:/[\w.{},*-]*)+)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"(?:^|`)make ((?:[a-z_]+ ?)+)", re.MULTILINE)
COMMAND = re.compile(r"(?:^|[`\s/])switchyard ((?:[a-z_]+ ?){1,2})([^`\n|>]*)", re.MULTILINE)


def expand(path: str) -> list[str]:
    """`a/{b,c}.h` as both; nothing for a pattern with a star."""
    if "*" in path:
        return []
    match = re.search(r"\{([^{}]*)\}", path)
    if not match:
        return [path]
    return [whole for part in match[1].split(",") for whole in expand(path[: match.start()] + part + path[match.end() :])]


def is_there(path: pathlib.Path) -> bool:
    """`train/step` stands for step.h and step.cc."""
    return path.exists() or (path.parent.is_dir() and any(path.parent.glob(path.name + ".*")))


def missing_paths(text: str, code_only: bool) -> list[str]:
    """Paths into the project that are not there. In prose a word like `text/data` is a path only in backticks or code."""
    found = []
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)) if code_only else text
    for source, folders in ((text, FOLDERS), (code, MODULES)):
        for written in PATH.findall(source):
            for path in expand(written.rstrip(".,-")):
                if path.split("/")[0] not in folders:
                    continue
                if not any(is_there(base / path) for base in (ROOT, ROOT / "src", ROOT / "tests")):
                    found.append(f"no such file: {path}")
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_document(path: pathlib.Path, targets: set[str]) -> list[str]:
    text = path.read_text()
    faults = missing_paths(text, code_only=True)
    for link in LINK.findall(text):
        if not (path.parent / link).exists():
            faults.append(f"broken link: {link}")
    for words in MAKE.findall("\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))):
        if words.split()[0] not in targets:
            faults.append(f"no target of the Makefile: make {words.split()[0]}")
    return faults


class Program:
    """The program's commands: `help_of(["inspect"])` is what `switchyard inspect --help` prints, "" for no such command."""

    def __init__(self, program: pathlib.Path):
        self.program = program
        self.known: dict[tuple[str, ...], str] = {}

    def help_of(self, words: list[str]) -> str:
        key = tuple(words)
        if key not in self.known:
            done = subprocess.run([self.program, *words, "--help"], capture_output=True, text=True, timeout=60)
            self.known[key] = done.stdout if done.returncode == 0 else ""
        return self.known[key]

    def commands(self, above: list[str]) -> list[str]:
        listed = re.search(r"^Subcommands:\n((?:  .*\n?)+)", self.help_of(above), re.MULTILINE)
        return re.findall(r"^  (\w+)", listed[1], re.MULTILINE) if listed else []

    def check_calls(self, text: str) -> list[str]:
        """Each `switchyard COMMAND --option ...` of a text against that command's help."""
        faults = []
        for words, rest in COMMAND.findall(text):
            first, *more = words.split()
            if first not in self.commands([]):
                faults.append(f"no such command: switchyard {first}")
                continue
            call = [first, *more[:1]] if more and more[0] in self.commands([first]) else [first]
            for option in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", rest):
                if not re.search(rf"(?<![\w-]){option}(?![\w-])", self.help_of(call)):
                    faults.append(f"switchyard {' '.join(call)} has no {option}")
        return faults


def main() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    targets = make_targets()
    faults = [f"{path.relative_to(ROOT)}: {fault}" for path in documents for fault in check_document(path, targets)]
    texts = len(documents)
    if len(sys.argv) > 1:
        program = Program(pathlib.Path(sys.argv[1]).resolve())
        for path in documents:
            code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", path.read_text().replace("\\\n", " "), re.DOTALL))
            faults += [f"{path.relative_to(ROOT)}: {fault}" for fault in program.check_calls(code)]
        for call in [[], *([command] for command in program.commands([]))]:
            for words in [call, *([*call, below] for below in (program.commands(call) if call else []))]:
                text = program.help_of(words)
                name = " ".join(["switchyard", *words, "--help"])
                texts += 1
                faults += [f"{name}: {fault}" for fault in missing_paths(text, code_only=False) + program.check_calls(text)]
    if faults:
        sys.exit("\n".join(dict.fromkeys(faults)) + f"\ncheck_docs: {len(set(faults))} faults")
    print(f"documents: {texts} texts name only what exists")


if __name__ == "__main__":
    main()
