#!/usr/bin/env python3
"""Prepares the quickstart's text: documents for training and, apart from them, every 50th for evaluation.

    scripts/quickstart_text.py OUT [FILE or FOLDER ...]

writes OUT/train.jsonl and OUT/held_out.jsonl, one {"id", "text"} a line. Without files the text is English prose that
Debian packages: the GNU Collaborative International Dictionary (dict-gcide) and Perl's manual (perl-doc). Files may be
.txt, .md or .jsonl (field "text"), each also with .gz; folders are searched for them. The same input gives the same
output, byte for byte.
"""

import gzip
import json
import pathlib
import re
import sys
from collections.abc import Iterator

HELD_OUT_EVERY = 50
DOCUMENT_CHARACTERS = 3000  # what dictionary entries and plain text are gathered to; about 700 tokens

DICTIONARY = pathlib.Path("/usr/share/dictd/gcide.dict.dz")  # gzip under another name
MANUALS = pathlib.Path("/usr/share/perl")  # <version>/pod/*.pod

Document = tuple[str, str]  # id, text


def fail(message: str) -> None:
    sys.exit(f"quickstart: {message}")


def gather(pieces: Iterator[str], name: str) -> Iterator[Document]:
    """Consecutive pieces as documents of at least DOCUMENT_CHARACTERS, the last one shorter."""
    held, size, number = [], 0, 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= DOCUMENT_CHARACTERS:
            yield f"{name}/{number}", "\n".join(held)
            held, size, number = [], 0, number + 1
    if held:
        yield f"{name}/{number}", "\n".join(held)


def paragraphs(text: str) -> list[str]:
    """Paragraphs between blank lines, each on one line."""
    return [line for line in (" ".join(part.split()) for part in re.split(r"\n\s*\n", text)) if line]


# The dictionary: headwords start in the first column, everything else is indented.


def clean_entry(entry: str) -> str:
    text = re.sub(r"\\[^\\\n]*\\", "", entry)  # pronunciation: \Lan"guor*ous\
    text = re.sub(r"\[R\.?\]", "", text)  # rare
    text = re.sub(r"\[[^\w\]\s]?([A-Za-z]{1,2})[^\w\]\s]?\]", r"\1", text)  # accents: Laniid[ae], fran[,c]ais
    for _ in range(3):  # sources, etymologies and labels, which nest: [L. {Laniary}, a. [1913 Webster]]
        text = re.sub(r"\[[^\[\]]*\]", "", text)
    text = re.sub(r"\([^\s()]*[\"*`^][^\s()]*\)", "", text)  # pronunciation in parentheses
    text = re.sub(r"(?<=\w)[\"*`](?=[a-z])", "", text)  # stress and syllables: Huge"ly
    text = re.sub(r"[{}]", "", text)
    lines = paragraphs(text)
    return "\n".join(re.sub(r"\s+([,.;:])", r"\1", line) for line in lines)


def dictionary_entries() -> Iterator[str]:
    entry: list[str] = []
    with gzip.open(DICTIONARY, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line[:1].strip() and entry:
                yield "".join(entry)
                entry = []
            entry.append(line)
    yield "".join(entry)


def dictionary() -> Iterator[Document]:
    started = False  # the licence and the preface come first, up to the first headword with a pronunciation
    entries = []
    for entry in dictionary_entries():
        started = started or re.match(r"\S[^\n]*\\[^\\\n]+\\", entry) is not None
        if started:
            entries.append(entry)
    cleaned = (clean_entry(entry) for entry in entries)
    yield from gather((entry for entry in cleaned if len(entry) > 40), "gcide")


# Perl's manual pages: plain paragraphs between commands that start with "=".

ENTITIES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}


def plain_pod(text: str) -> str:
    """A paragraph without formatting codes such as C<...>, F<< ... >> and L<page/section>."""

    def replace(match: re.Match) -> str:
        code, content = match.group(1), match.group(3).strip()
        if code in "XZ":
            return ""
        if code == "E":
            return ENTITIES.get(content, chr(int(content)) if content.isdigit() else "")
        if code == "L":
            return re.split(r"[|/]", content)[0].strip('"') or content.strip('/"')
        return content

    for _ in range(4):  # codes nest; the innermost first
        text = re.sub(r"\b([A-Z])(<<+\s)(.*?)\s>>+", replace, text, flags=re.S)
        text = re.sub(r"\b([A-Z])(<)([^<>]*)>", replace, text)
    return " ".join(text.split())


def pod_sections(source: str) -> Iterator[str]:
    section: list[str] = []
    skipping = False
    for block in re.split(r"\n\s*\n", source):
        command = re.match(r"=(\w+)\s*(.*)", block, flags=re.S)
        if command and command.group(1) in ("begin", "end"):
            skipping = command.group(1) == "begin"
        elif skipping or (not command and block[:1].isspace()):
            continue  # other formats; program text
        elif command and command.group(1) in ("head1", "head2"):
            if section:
                yield "\n".join(section)
            section = [plain_pod(command.group(2))]
        elif command and command.group(1) in ("head3", "head4", "item"):
            title = plain_pod(command.group(2)).lstrip("*").strip()
            if title and not title.rstrip(".").isdigit():
                section.append(title)
        elif not command:
            section.append(plain_pod(block))
    if section:
        yield "\n".join(section)


def manuals() -> Iterator[Document]:
    files = {path.name: path for path in MANUALS.glob("*/pod/*.pod")}
    for name, path in sorted(files.items()):
        sections = pod_sections(path.read_text(encoding="utf-8", errors="replace"))
        for number, text in enumerate(text for text in sections if len(text) > 200):
            yield f"perl/{path.stem}/{number}", text


# Text of one's own.


def read_file(path: pathlib.Path) -> Iterator[Document]:
    stem = path.name.removesuffix(".gz")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            if stem.endswith(".jsonl"):
                for number, line in enumerate(file):
                    yield f"{stem}/{number}", json.loads(line)["text"]
            else:
                yield from gather(iter(paragraphs(file.read())), stem)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        fail(f"{path}: {type(error).__name__}: {error}")


def read_given(arguments: list[str]) -> Iterator[Document]:
    wanted = (".txt", ".md", ".jsonl", ".txt.gz", ".md.gz", ".jsonl.gz")
    for argument in map(pathlib.Path, arguments):
        if argument.is_dir():
            files = sorted(path for path in argument.rglob("*") if path.is_file() and path.name.endswith(wanted))
        elif argument.is_file() and argument.name.endswith(wanted):
            files = [argument]
        else:
            fail(f"{argument}: expected a folder, or a file that ends in {', '.join(wanted)}")
        for path in files:
            yield from read_file(path)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] == ["--help"] else 2)
    out = pathlib.Path(sys.argv[1])
    if sys.argv[2:]:
        documents = list(read_given(sys.argv[2:]))
    else:
        if not DICTIONARY.is_file():
            fail(f"{DICTIONARY} is missing; install the package dict-gcide (make quickstart does), or give text of your own")
        documents = [*dictionary(), *manuals()]
    documents = [(name, text) for name, text in documents if text.strip()]
    if len(documents) < 4:
        fail(f"only {len(documents)} documents found; a model needs more text than that")
    every = min(HELD_OUT_EVERY, max(2, len(documents) // 4))

    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split, held_out in (("train", False), ("held_out", True)):
        lines = [
            json.dumps({"id": name, "text": text}, ensure_ascii=False)
            for number, (name, text) in enumerate(documents)
            if (number % every == every - 1) == held_out
        ]
        data = "".join(line + "\n" for line in lines).encode("utf-8", errors="replace")
        aside = out / f"{split}.jsonl.part"
        aside.write_bytes(data)
        aside.rename(out / f"{split}.jsonl")
        sizes[split] = f"{len(lines)} documents, {len(data) / 1e6:.1f} MB"
    print(f"text: {sizes['train']} to train on; {sizes['held_out']} held out")


if __name__ == "__main__":
    main()
