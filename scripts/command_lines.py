"""Command lines of the program, checked against its --help without running them, and run keys against --help-config."""

import pathlib
import re
import shlex
import subprocess
from dataclasses import dataclass, field

OPTION = re.compile(r"^  (-\S+|[a-z]+)((?: \S+)*)")
TYPE = re.compile(r"^ (TEXT|INT|UINT|FLOAT)(\S*)((?: in \[[^\]]*\])?)")
OPERATORS = {"|", "||", "&&", ";", ">", "<", ">>", "2>", "&"}


@dataclass
class Argument:
    """One line of a help: a positional or an option. `words` None for a flag; `limits` such as POSITIVE, {a,b}, [0 - 5]."""

    names: list[str]
    kind: str | None = None
    limits: str = ""
    many: bool = False
    required: bool = False

    def fault(self, value: str) -> str:
        wrong = f"{self.names[-1]} takes no {value!r}"
        if "<" in value or value.startswith("$") or value.isupper():  # a placeholder
            return ""
        if self.kind in ("INT", "UINT", "FLOAT"):
            try:
                number = float(value) if self.kind == "FLOAT" else int(value)
            except ValueError:
                return f"{wrong}: not {self.kind}"
            bounds = re.search(r"\[(\S+) - (\S+)\]", self.limits)
            if bounds and not float(bounds[1]) <= number <= float(bounds[2]):
                return f"{wrong}: outside {bounds[0]}"
            if number < 0 and "NEGATIVE" in self.limits or number <= 0 and "POSITIVE" in self.limits:
                return f"{wrong}: {self.limits.strip(':')}"
        words = re.search(r"\{([^}]*)\}", self.limits)
        return f"{wrong}: one of {words[1]}" if words and value not in words[1].split(",") else ""


@dataclass
class Help:
    text: str
    positionals: list[Argument] = field(default_factory=list)
    options: dict[str, Argument] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def read_help(text: str) -> Help:
    known, part = Help(text), ""
    for line in text.splitlines():
        title = re.match(r"^(Positionals|Options|Subcommands):$", line)
        if title or not line.strip():
            part = title[1] if title else ""
            continue
        match = OPTION.match(line)
        if not part or not match:
            continue
        names, rest = match[1].split(","), match[2]
        if part == "Subcommands":
            known.commands.append(names[0])
            continue
        kind = TYPE.match(rest)
        argument = Argument(names, kind[1] if kind else None, (kind[2] + kind[3]) if kind else "", "..." in rest.split(), "REQUIRED" in rest.split())
        if part == "Positionals":
            known.positionals.append(argument)
        else:
            known.options.update({name: argument for name in names})
    return known


class Program:
    """The program as its help shows it. Nothing but --help and --help-config is run."""

    def __init__(self, program: pathlib.Path):
        self.program = program
        self.known: dict[tuple[str, ...], Help] = {}
        self.keys = self.read_keys()

    def output(self, *words: str) -> str:
        done = subprocess.run([self.program, *words], capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def help_of(self, words: list[str]) -> Help:
        key = tuple(words)
        if key not in self.known:
            self.known[key] = read_help(self.output(*words, "--help"))
        return self.known[key]

    def read_keys(self) -> dict[str, set[str]]:
        """Keys of each section of a run file."""
        keys: dict[str, set[str]] = {}
        section = ""
        for line in self.output("train", "--help-config").splitlines():
            if title := re.match(r"^\[+([a-z.]+)\]+$", line):
                section = title[1]
            elif key := re.match(r"^  (\w+) = ", line):
                keys.setdefault(section, set()).add(key[1])
        keys["routing"] = keys["model"]
        return keys

    def setting_fault(self, setting: str) -> str:
        place = setting.split("=")[0]
        section, _, key = place.rpartition(".")
        return "" if "=" in setting and key in self.keys.get(section, ()) else f"no such run key: {place}"

    def split_call(self, words: list[str]) -> tuple[list[str], list[str]]:
        """`bench train --json` as ([bench, train], [--json])."""
        call: list[str] = []
        while words and words[0] in self.help_of(call).commands:
            call, words = [*call, words[0]], words[1:]
        return call, words

    def faults(self, words: list[str]) -> list[str]:
        """What is wrong with `switchyard WORDS`, a complete command line."""
        call, rest = self.split_call(words)
        if not call and rest and not rest[0].startswith("-"):
            return [f"no such command: switchyard {rest[0]}"]
        known, faults, given, positionals = self.help_of(call), [], set(), []
        while rest:
            word, rest = rest[0], rest[1:]
            if not re.match(r"^--?[a-z]", word):
                positionals.append(word)
                continue
            name, equals, value = word.partition("=")
            argument = known.options.get(name)
            if argument is None:
                faults.append(f"switchyard {' '.join(call)} has no {name}")
                continue
            given.add(argument.names[-1])
            if argument.kind is None:
                faults += [f"{name} takes no value"] if equals else []
                continue
            values = [value] if equals else []
            while rest and not rest[0].startswith("--") and (not values or argument.many and name not in ("--set", "--prompt")):
                values, rest = [*values, rest[0]], rest[1:]
            if not values:
                faults.append(f"{name} needs a value")
            faults += [argument.fault(value) for value in values]
            if name == "--set":
                faults += [self.setting_fault(value) for value in values]
        return [fault for fault in faults + self.missing(known, given, positionals) if fault]

    def missing(self, known: Help, given: set[str], positionals: list[str]) -> list[str]:
        """Required arguments that were not given, and positionals too many."""
        if given & {"--help", "--help-config", "--version"}:
            return []
        faults = [f"{name} is missing" for name, argument in known.options.items() if argument.required and argument.names[-1] not in given]
        if len(positionals) < sum(argument.required for argument in known.positionals):
            faults.append(f"{known.positionals[len(positionals)].names[0]} is missing")
        if len(positionals) > len(known.positionals) and not any(argument.many for argument in known.positionals):
            faults.append(f"not expected: {positionals[-1]}")
        return faults + (["a command is missing"] if known.commands else [])

    def run_file_faults(self, sections: dict) -> list[str]:
        """Keys of a parsed run file that --help-config does not list."""
        faults = [f"no such section of a run file: [{section}]" for section in sections if section not in self.keys]
        for section, values in sections.items():
            for key, value in values.items():
                if section == "data" and key == "mixture" and isinstance(value, list):
                    faults += [self.setting_fault(f"data.mixture.{below}=") for entry in value for below in entry]
                elif section in self.keys:
                    faults.append(self.setting_fault(f"{section}.{key}="))
        return [fault for fault in faults if fault]


def calls_in(line: str) -> list[list[str]]:
    """Words after `switchyard` in a line of a shell, up to the next operator. Raises ValueError on open quotes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    calls: list[list[str]] = []
    inside = False
    for word in lexer:
        if word in OPERATORS or set(word) <= set("|&;<>"):
            inside = False
        elif inside:
            calls[-1].append(word)
        elif word == "switchyard" or word.endswith("/switchyard"):
            calls.append([])
            inside = True
    return calls
