#!/usr/bin/env python3
"""The manual page, made of what --help says: every command with its options, every key of a run file.

    scripts/manual.py [PROGRAM] > ~/.local/share/man/man1/switchyard.1       then `man switchyard`
    man -l <(scripts/manual.py)                                             to read it at once
"""

import pathlib
import re
import sys

from command_lines import Program

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLOSING = """.SH EXIT STATUS
0: done. 2: the call or a file that it names is wrong; the message says what, where and what to do. 1: anything else.
.SH ENVIRONMENT
.TP
.B OMP_NUM_THREADS
processor threads, where \\-\\-threads does not say
.TP
.B SWITCHYARD_API_KEY
what clients of \\fBserve\\fR must send as \\fIAuthorization: Bearer KEY\\fR
"""
ENTRY = re.compile(r"^  (\S(?:\S| (?! ))*)(?: {2,}(.*))?$")


def escape(text: str) -> str:
    """As roff shows it letter by letter."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def verbatim(lines: list[str]) -> list[str]:
    return [".PP", ".nf", ".RS", *map(escape, lines), ".RE", ".fi"] if lines else []


def entries(lines: list[str]) -> list[str]:
    """Options of a help as tagged paragraphs; what follows an option, on its line or below it, is its text."""
    made = []
    for line in lines:
        if match := ENTRY.match(line):
            made += [".TP", f".B {escape(match[1])}"]
            line = match[2] or ""
        if line.strip():
            made.append(escape(line.strip()))
    return made


def parts_of(text: str) -> dict[str, list[str]]:
    """A help's lines by part: description, usage, options, positionals, subcommands, examples."""
    parts, part = {"description": []}, "description"
    for line in text.splitlines():
        if title := re.match(r"^(Options|Positionals|Subcommands):$", line):
            part = title[1].lower()
        elif line.startswith("Usage:"):
            parts["usage"], part = [line.removeprefix("Usage:").strip()], "none"
        elif re.match(r"^Examples?:", line):
            part = part if part == "description" else "examples"
            parts.setdefault("examples", []).append(re.sub(r"^Examples?:\s*", "", line))
            continue
        elif line.strip():
            if part == "none" or part == "examples" and not line.startswith(" "):
                part = "examples"
            text = line if part in ("options", "positionals", "subcommands") else line.strip()
            parts.setdefault(part, []).append(text)
        elif part in ("options", "positionals", "subcommands"):
            part = "none"
    return parts


def command_section(program: Program, call: list[str]) -> list[str]:
    parts = parts_of(program.help_of(call).text)
    made = [f".SS {escape(' '.join(call))}", *map(escape, parts["description"])]
    made += verbatim(parts["usage"]) + entries(parts.get("positionals", [])) + entries(parts.get("options", []))
    if "examples" in parts:
        made += [".PP", "Examples:", *verbatim(parts["examples"])]
    return made


def main() -> None:
    program = Program(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release/switchyard"))
    top = parts_of(program.help_of([]).text)
    version = program.output("--version").strip()
    lines = [f'.TH SWITCHYARD 1 "" "switchyard {version}"', ".nh", ".ad l", ".SH NAME", "switchyard \\- " + escape(top["description"][0].removeprefix("Switchyard: ")),
             ".SH SYNOPSIS", ".B switchyard", ".I COMMAND", "[options]", ".SH COMMANDS"]
    calls = [[command] for command in program.help_of([]).commands]
    while calls:
        call = calls.pop(0)
        calls = [[*call, command] for command in program.help_of(call).commands] + calls
        lines += command_section(program, call)
    keys = program.output("train", "--help-config").splitlines()
    lines += [".SH RUN FILES", "A run file is TOML. Every key with its default:", *verbatim(keys), CLOSING.rstrip()]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
