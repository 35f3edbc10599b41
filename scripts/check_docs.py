#!/usr/bin/env python3
"""Checks that what documents, helps and comments name exists, and that the commands they show would run.

    scripts/check_docs.py [PROGRAM]

Paths into the project (scripts/fuzz.sh, model/config.h, [design](docs/design.md)), targets of make, options of scripts. With PROGRAM, what
`--help` of each command says as well: every command line shown in a block of code or in a help is complete and has values that the command takes; every run
file shown has keys that exist. A path is one into the project if it begins with one of its folders, or with one of src/.
Sections of FIGURES that hold a table or printed output name the command that made it.
"""

import pathlib
import re
import subprocess
import sys
import tomllib

from command_lines import Program, calls_in

ROOT = pathlib.Path(__file__).resolve().parent.parent
MADE = {"build", "runs", "quickstart"}  # by commands that the documents show
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - MADE - {".venv", ".git", ".cache"}
MODULES = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(path for folder in ("docs", "configs", "examples", ".github") for path in sorted((ROOT / folder).glob("**/*.md"))),
]
FIGURES = {"results.md", "log.md"}

PATH = re.compile(r"(?<![\w./:<~$-])((?:\.?[\w-]+)(?:/[\w.{},*-]*)+)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"(?:^|`)make ((?:[a-z_]+ ?)+)", re.MULTILINE)
COMMAND = re.compile(r"(?:^|[`\s/])switchyard ((?:[a-z_]+ ?){1,2})([^`\n|>]*)", re.MULTILINE)


def expand(path: str) -> list[str]:
    """`a/{b,c}.h` as both; nothing for a pattern with a star or a placeholder in capitals."""
    if "*" in path or re.search(r"(?:^|/)[A-Z]+(?:\.\w+)?$", path) and not path.endswith(".md"):
        return []
    match = re.search(r"\{([^{}]*)\}", path)
    if not match:
        return [path]
    return [whole for part in match[1].split(",") for whole in expand(path[: match.start()] + part + path[match.end() :])]


def is_there(path: pathlib.Path) -> bool:
    """`train/step` stands for step.h and step.cc."""
    return path.exists() or (path.parent.is_dir() and any(path.parent.glob(path.name + ".*")))


def missing_paths(text: str, code_only: bool) -> list[str]:
    """Paths into the project that are not there. In prose a word of the modules (text, data) is a path only in backticks or code."""
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


def blocks(text: str) -> list[tuple[str, str]]:
    """Fenced blocks as (language, content), continued lines joined."""
    return [(language, content.replace("\\\n", " ")) for language, content in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)]


def line_faults(program: Program, text: str) -> list[str]:
    """Faults of every command line of `switchyard` in lines of a shell or of a help."""
    faults = []
    for line in text.splitlines():
        start = re.search(r"(?:^|[\s/(;|])switchyard [a-z]", line)
        if not start or line.startswith("Usage:"):
            continue
        try:
            calls = calls_in(re.sub(r"^\s*Examples?: ", "", line))
        except ValueError as error:
            faults.append(f"{line.strip()}: {error}")
            continue
        faults += [f"switchyard {' '.join(words)}: {fault}" for words in calls for fault in program.faults(words)]
    return faults


def run_file_faults(program: Program, text: str) -> list[str]:
    """Faults of the run files in a document: blocks of TOML, and what a block writes to a .toml file."""
    files = [content for language, content in blocks(text) if language == "toml"]
    files += re.findall(r"cat > \S+\.toml <<'(?:\w+)'\n(.*?)\n[A-Z]+\n", text, re.DOTALL)
    faults = []
    for content in files:
        try:
            sections = tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            faults.append(f"TOML: {error}")
            continue
        if "task" not in sections:  # a task's file, which is another form
            faults += program.run_file_faults(sections)
    return faults


def mentioned_faults(program: Program, text: str) -> list[str]:
    """Each `switchyard COMMAND --option ...` within a sentence, which need not be complete."""
    faults = []
    for words, rest in COMMAND.findall(text):
        call, _ = program.split_call(words.split())
        if not call:
            faults.append(f"no such command: switchyard {words}")
            continue
        for option in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", rest):
            if option not in program.help_of(call).options:
                faults.append(f"switchyard {' '.join(call)} has no {option}")
    return faults


def document_faults(program: Program, text: str) -> list[str]:
    code = "\n".join(content for _, content in blocks(text))
    inline = "\n".join(re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    return line_faults(program, code) + mentioned_faults(program, inline) + run_file_faults(program, text)


def help_faults(program: Program) -> list[str]:
    faults, calls = [], [[]]
    while calls:
        call = calls.pop()
        known = program.help_of(call)
        calls += [[*call, command] for command in known.commands]
        found = missing_paths(known.text, code_only=False) + line_faults(program, known.text) + mentioned_faults(program, known.text)
        faults += [f"switchyard {' '.join([*call, '--help'])}: {fault}" for fault in found]
    return faults


def script_faults(text: str) -> list[str]:
    """Options of the project's scripts that a text shows and the script does not have."""
    faults = []
    for path, rest in re.findall(r"((?:scripts|tools|tests)/[\w/]+\.(?:py|sh))([^`\n|>]*)", text):
        source = (ROOT / path).read_text() if (ROOT / path).exists() else rest
        options = re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)
        faults += [f"{path} has no {option}" for option in options if not re.search(rf"{option}(?![\w-])", source)]
    return faults


def figure_faults(text: str) -> list[str]:
    """Sections with a table or printed output and no command, or one that is not there."""
    faults = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if "\n|" in section or "\n```" in section:
            if not re.search(r"`[^`\n]*(?:make [a-z]|git show|scripts/\w+\.|tests/\S+\.py|switchyard [a-z])[^`]*`", section):
                faults.append(f"no command beside the figures of section {section.splitlines()[0]!r}")
    return faults


def commit_faults(text: str) -> list[str]:
    """Commits that a text names and this history does not have; nothing to say without a whole history."""
    git = ["git", "-C", str(ROOT)]
    whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    if whole.stdout.strip() != "false":
        return []
    named = re.findall(r"`git show ([0-9a-f]{7,40})`", text)
    return [f"no such commit: {name}" for name in named if subprocess.run([*git, "merge-base", "--is-ancestor", name, "HEAD"], capture_output=True).returncode]


COMMENT = re.compile(r"(?:^|\s)(?://|#) (.*)$", re.MULTILINE)
CODE_FOLDERS = ("src", "tests", "bench", "examples", "fuzz", "tools", "scripts", "configs", "cmake")
CODE = {".h", ".cc", ".py", ".sh", ".toml", ".cmake", ".txt"}


def comment_faults(program: Program | None) -> tuple[list[str], int]:
    """Paths and calls in comments of the source, by file; and how many files were read."""
    faults, count = [], 0
    for path in sorted(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in CODE):
        comments = "\n".join(COMMENT.findall(path.read_text(errors="replace")))
        if path.suffix == ".py":
            comments += "\n".join(re.findall(r'"""(.*?)"""', path.read_text(), re.DOTALL))
        quoted = "\n".join(re.findall(r"`[^`\n]+`", comments))
        found = missing_paths(comments, code_only=True) + script_faults(comments)
        if program:
            found += mentioned_faults(program, quoted)
        faults += [f"{path.relative_to(ROOT)}: {fault}" for fault in found]
        count += 1
    return faults, count


def main() -> None:
    program = Program(pathlib.Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else None
    targets = make_targets()
    faults, count = comment_faults(program)
    documents = [path for path in DOCUMENTS if path.exists()]
    for path in documents:
        text = path.read_text()
        found = check_document(path, targets) + script_faults(text) + commit_faults(text)
        if path.name in FIGURES:
            found += figure_faults(text)
        if program:
            found += document_faults(program, text)
        faults += [f"{path.relative_to(ROOT)}: {fault}" for fault in found]
    if program:
        faults += help_faults(program)
    if faults:
        sys.exit("\n".join(dict.fromkeys(faults)) + f"\ncheck_docs: {len(set(faults))} faults")
    print(f"documents: {len(documents)} documents and the comments of {count} files name only what exists")


if __name__ == "__main__":
    main()
