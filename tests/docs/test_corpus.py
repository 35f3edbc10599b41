"""scripts/corpus.py on a package made here: what is text, what is held out, and that the choice depends on names alone."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import types

import pytest
from conftest import SOURCE

sys.path.insert(0, str(SOURCE / "scripts"))
import corpus  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is absent")
PARAGRAPH = "The lamp on the north bridge was lit by seven women of the harbour every evening of that long year. "


@pytest.fixture
def packages(tmp_path):
    """A folder of one package, as apt-get leaves it."""
    root = tmp_path / "root"
    pages = root / "usr/share/doc/lamps"
    pages.mkdir(parents=True)
    for number in range(300):
        (pages / f"page{number}.html").write_text(
            f"<html><head><title>no</title><style>p {{}}</style></head><body><nav>menu</nav><p>Page {number}. {PARAGRAPH * 3}</p><p>End &amp; out.</p>"
            "</body></html>")
    (pages / "notes.txt.gz").write_bytes(gzip.compress((PARAGRAPH * 4).encode()))
    (pages / "copy.txt").write_text(PARAGRAPH * 4)
    (pages / "picture.png").write_bytes(bytes(range(256)) * 4)
    (pages / "latin.txt").write_bytes((PARAGRAPH * 4).encode() + b"\xe9\xff")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text("Package: lamps\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: lamps\n")
    folder = tmp_path / "packages"
    folder.mkdir()
    subprocess.run(["dpkg-deb", "--build", root, folder / "lamps_1_all.deb"], check=True, stdout=subprocess.DEVNULL)
    return folder


def made(packages: pathlib.Path, out: pathlib.Path, monkeypatch, wanted: str = "") -> tuple[dict, dict, dict]:
    monkeypatch.setattr(corpus, "DOCUMENTATION", {"lamps": wanted})
    writer = corpus.Writer(out, "documentation", set())
    corpus.add_documentation(writer, packages, types.SimpleNamespace())
    counts = writer.finish()
    read = [{row["id"]: row["text"] for row in map(json.loads, (out / part / "documentation.jsonl").read_text().splitlines())} for part in ("train", "held_out")]
    return counts, *read


def test_takes_the_text_and_nothing_else(packages, tmp_path, monkeypatch):
    counts, train, held_out = made(packages, tmp_path / "out", monkeypatch)
    everything = train | held_out
    page = everything["lamps/usr/share/doc/lamps/page7.html"]
    assert page == f"Page 7. {(PARAGRAPH * 3).strip()}\nEnd & out."
    copies = [name for name in everything if "notes" in name or "copy" in name]
    assert len(copies) == 1, "a text that comes twice is taken once"
    assert not [name for name in everything if "picture" in name or "latin" in name]
    assert counts["train"]["documents"] == len(train) and counts["held_out"]["documents"] == len(held_out)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_is_held_out_depends_on_names_alone(packages, tmp_path, monkeypatch):
    _, train, held_out = made(packages, tmp_path / "all", monkeypatch)
    assert 1 <= len(held_out) <= 20 and len(train) + len(held_out) == 301
    _, some_train, some_held_out = made(packages, tmp_path / "some", monkeypatch, wanted=r"page\d*[02468]\.html")
    assert len(some_train) + len(some_held_out) == 150
    assert set(some_train) <= set(train) and set(some_held_out) <= set(held_out)
