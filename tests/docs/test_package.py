"""scripts/package.sh: its folder runs after it was moved, with nothing but itself and the C library."""

import os
import re
import subprocess

import pytest
from conftest import PROGRAM, SOURCE, write_text

C_LIBRARY = re.compile(r"^(linux-vdso|ld-linux-[\w-]+|libc|libm|libdl|librt|libpthread)\.so")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    out = tmp_path_factory.mktemp("package")
    done = subprocess.run([SOURCE / "scripts/package.sh", PROGRAM.parent, out, "folder"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = out / done.stdout.strip().rsplit("/", 1)[1]
    return made.rename(out / "elsewhere")


def run(package, *words):
    """With a bare environment, and where the system allows it with the Python environment hidden."""
    hidden = os.path.realpath(SOURCE / ".venv")
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{hidden}" && exec "$@"', "sh"]
    can_hide = subprocess.run([*hide, "true"], capture_output=True).returncode == 0
    done = subprocess.run([*(hide if can_hide else []), package / "switchyard", *words], cwd="/", env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_library_is_its_own(package):
    environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(package / "lib")}
    listed = subprocess.run(["ldd", package / "lib/switchyard"], env=environment, capture_output=True, text=True, check=True).stdout
    others = [line for line in listed.splitlines() if str(package) not in line and not C_LIBRARY.match(line.strip().split("/")[-1])]
    assert others == [], others
    assert any((package / "licences").iterdir())
    assert (package / "share/man/man1/switchyard.1").read_text().startswith(".TH SWITCHYARD 1")
    assert "_switchyard" in (package / "share/bash-completion/completions/switchyard").read_text()


def test_trains_and_generates(package, tmp_path):
    write_text(tmp_path / "books/a.txt", 3000, 1)
    run(package, "vocab", "train", "--text", tmp_path / "books", "--size", "200", "--out", tmp_path / "spiece.model")
    (tmp_path / "run.toml").write_text('[model]\npreset = "switch-tiny-4"\n[data]\ntext = ["books"]\nvocab = "spiece.model"\nencoder_length = 48\n'
                                       "[train]\nsteps = 2\nbatch_size = 2\n")
    run(package, "train", tmp_path / "run.toml", "--out", tmp_path / "run", "--quiet")
    assert run(package, "generate", "--model", tmp_path / "run", "--prompt", "Ada <extra_id_0> of it.", "--json").startswith("{")
