#!/usr/bin/env python3
"""Text that anyone with Debian can install, for training runs that would see smaller corpora many times.

    scripts/corpus.py --out runs/corpus [--data FOLDER] [--source-share 0.1]

Downloads packages of documentation and the source of Linux (`apt-get download`: nothing is installed), takes the text out of them, and
adds pretrain_en and the 101 languages of FOLDER (default: $SWITCHYARD_DATA, else ../shared/data) where that is there. Writes OUT/train/KIND.jsonl
and OUT/held_out/KIND.jsonl, a document {"id", "text"} a line, and OUT/corpus.json with counts and the packages' versions. KIND is english,
documentation, source or languages. A document is held out if the hash of its id says so (1 of 50), so that the choice depends on nothing else;
texts that come twice are taken once. What is complete is not made again.
"""

import argparse
import gzip
import hashlib
import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Packages of prose, and which of their files: indices of interfaces would drown the rest.
DOCUMENTATION = {"debian-handbook": "/en-US/", "debian-reference-en": "", "python3.11-doc": "/(tutorial|howto|faq|library|reference|whatsnew)/",
                 "postgresql-doc-15": "", "rust-doc": "/(book|reference|nomicon|rust-by-example|edition-guide|cargo)/", "git-doc": r"\.txt", "perl-doc": "",
                 "vim-doc": "", "octave-doc": "", "sqlite3-doc": "", "glibc-doc": "", "cmake-doc": "", "r-doc-html": "/manual/", "bible-kjv-text": "",
                 "fortunes": ""}
SOURCE = "linux-source-6.1"
HELD_OUT_OF = 50
SHORTEST, LONGEST = 200, 1_000_000  # characters


class PlainText(html.parser.HTMLParser):
    """The words of a page: paragraphs on lines of their own, without scripts, styles and navigation."""

    SKIPPED = {"script", "style", "nav", "head", "footer", "svg"}
    BLOCKS = {"p", "div", "li", "tr", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "br", "table", "section"}

    def __init__(self):
        super().__init__()
        self.parts, self.skipped = [], []

    def handle_starttag(self, tag, attrs):
        if tag in self.SKIPPED:
            self.skipped.append(tag)
        elif tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if self.skipped and tag == self.skipped[-1]:
            self.skipped.pop()
        elif tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.skipped:
            self.parts.append(data)


def text_of(name: str, data: bytes) -> str:
    """The text of a file; "" for one that is none."""
    if name.endswith(".gz"):
        try:
            name, data = name[:-3], gzip.decompress(data)
        except OSError:
            return ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    if name.endswith((".html", ".htm", ".xhtml")):
        page = PlainText()
        page.feed(text)
        text = "".join(page.parts)
        lines = (re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
        return "\n".join(line for line in lines if line)
    if name.endswith((".txt", ".rst", ".pod", ".c", ".h", ".S", ".py", ".asciidoc", ".adoc", ".md")) or "." not in name.rsplit("/", 1)[-1]:
        return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())
    return ""


def in_share(key: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[8:12], "big") < share * 2**32


class Writer:
    """Documents of one kind into both of its files, which appear when they are whole."""

    def __init__(self, out: pathlib.Path, kind: str, seen: set):
        self.kind, self.seen, self.files, self.counts = kind, seen, {}, {"train": [0, 0], "held_out": [0, 0]}
        for part in self.counts:
            (out / part).mkdir(parents=True, exist_ok=True)
            self.files[part] = open(out / part / f"{kind}.jsonl.part", "w")

    def add(self, key: str, text: str) -> None:
        digest = hashlib.sha256(text.encode()).digest()
        if not SHORTEST <= len(text) <= LONGEST or digest in self.seen:
            return
        self.seen.add(digest)
        part = "held_out" if int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT_OF == 0 else "train"
        self.files[part].write(json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n")
        self.counts[part][0] += 1
        self.counts[part][1] += len(text.encode())

    def finish(self) -> dict:
        for part, file in self.files.items():
            file.close()
            pathlib.Path(file.name).rename(file.name[: -len(".part")])
        print(f"{self.kind}: " + ", ".join(f"{part} {count:,} documents, {size / 1e6:.1f} MB" for part, (count, size) in self.counts.items()))
        return {part: {"documents": count, "bytes": size} for part, (count, size) in self.counts.items()}


def download(package: str, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{package.replace('+', '*')}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found = sorted(folder.glob(f"{package.replace('+', '*')}_*.deb"))
    return found[-1]


def files_of(archive: tarfile.TarFile):
    for member in archive:
        if member.isfile() and SHORTEST <= member.size <= LONGEST:
            yield member.name.removeprefix("./"), archive.extractfile(member).read()


def package_files(deb: pathlib.Path):
    """Names and contents of a package's files, streamed."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.name.endswith(".tar.xz"):
                    with tarfile.open(fileobj=archive.extractfile(member), mode="r|xz") as inner:
                        yield from files_of(inner)
                elif SHORTEST <= member.size <= 4 * LONGEST:
                    yield member.name.removeprefix("./"), archive.extractfile(member).read()


def add_documentation(writer: Writer, packages: pathlib.Path, _) -> None:
    for package, wanted in DOCUMENTATION.items():
        for name, data in package_files(download(package, packages)):
            if re.search(wanted, name) and not name.endswith((".c", ".h", ".py", "copyright", "changelog.gz", "changelog.Debian.gz")):
                writer.add(f"{package}/{name}", text_of(name, data))


def add_source(writer: Writer, packages: pathlib.Path, options) -> None:
    for name, data in package_files(download(SOURCE, packages)):
        if name.endswith((".c", ".S", ".rst", ".py")) and in_share(name, options.source_share):
            writer.add(f"{SOURCE}/{name}", text_of(name, data))


def add_folder(writer: Writer, folder: pathlib.Path) -> None:
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for number, line in enumerate(lines):
                document = json.loads(line)
                writer.add(str(document.get("id", f"{path.stem}/{number}")), document["text"])


def main() -> None:
    data = os.environ.get("SWITCHYARD_DATA", str(ROOT.parent / "shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data))
    parser.add_argument("--source-share", type=float, default=0.1, help="of the files of Linux")
    options = parser.parse_args()
    summary_path = options.out / "corpus.json"
    summary = json.loads(summary_path.read_text()) if summary_path.exists() else {}
    makers = {"documentation": add_documentation, "source": add_source}
    if (options.data / "pretrain_en").is_dir():
        makers["english"] = lambda writer, *_: add_folder(writer, options.data / "pretrain_en")
        makers["languages"] = lambda writer, *_: add_folder(writer, options.data / "multilingual/mc4_101")
    else:
        print(f"{options.data}: no pretrain_en, left out")
    seen: set = set()
    for kind, add in makers.items():
        if kind in summary:
            continue
        writer = Writer(options.out, kind, seen)
        add(writer, options.out / "packages", options)
        summary[kind] = writer.finish()
        summary["packages"] = sorted(path.name for path in (options.out / "packages").glob("*.deb"))
        summary_path.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
