"""`pip install .` in an environment of its own, which has torch, what that needs, and nothing else of the project's."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import venv

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SWITCHYARD_BUILD", SOURCE / "build/release"))


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def needed(name, found):
    """A distribution and what it needs, by name."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # needed on other systems only
        return found
    if name not in found:
        found[name] = distribution
        for line in distribution.requires or []:
            if "extra ==" not in line:
                needed(re.match(r"[\w.-]+", line)[0], found)
    return found


def lend(name, site):
    """Torch and what it needs, half a gigabyte, by links to the project's own."""
    for distribution in needed(name, {}).values():
        tops = {file.parts[0] for file in distribution.files if not file.parts[0].startswith(("..", "__pycache__"))}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))


def cached(name):
    """A setting of the ordinary build: with the same flags the compiler cache has every object."""
    return re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True, with_pip=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    for name in ("torch", "numpy", "scikit-build-core", "nanobind"):
        lend(name, site)
    names = ("SWITCHYARD_WERROR", "SWITCHYARD_PYTHON", "TORCH_WHEEL_DIR")
    settings = [f"--config-settings=cmake.define.{name}={cached(name)}" for name in names]
    # The compiler by the same name and, since paths count as relative, from a folder as deep.
    environment = dict(os.environ, CXX=cached("CMAKE_CXX_COMPILER"), CCACHE_BASEDIR=str(SOURCE), CCACHE_NOHASHDIR="1",
                       CMAKE_BUILD_PARALLEL_LEVEL="2")
    environment.pop("PYTHONPATH", None)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", *settings,
        f"--config-settings=build-dir={BUILD}-wheel", SOURCE, env=environment)
    return folder / "bin/python"


def test_package_works_without_the_project(python, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"Ada found {n} red lamps in the harbour, and Bruno sold {n + 3}." for n in range(400)))
    code = """
import switchyard
switchyard.Vocabulary.train(["text.txt"], 60, "spiece.model")
config = {"model": {"preset": "switch-tiny-4"}, "data": {"text": ["text.txt"], "vocab": "spiece.model", "encoder_length": 32},
          "train": {"steps": 3, "batch_size": 2, "eval_every": 0}}
training = switchyard.train(config, out="run")
print([step.number for step in training], training.model().generate("Ada found", max_tokens=4).ids is not None, switchyard.__file__)
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    out = run(python, "-c", code, cwd=tmp_path, env=environment).split(" ")
    assert out[:4] == ["[1,", "2,", "3]", "True"] and out[4].startswith(str(python.parent.parent))
    for program in ([python, "-m", "switchyard"], [python.parent / "switchyard"]):
        assert "parameters" in run(*program, "inspect", "run", cwd=tmp_path, env=environment)


def test_wheel_holds_the_package_alone(python):
    site = next((python.parent.parent / "lib").glob("python3*")) / "site-packages"
    names = {path.relative_to(site / "switchyard").as_posix() for path in (site / "switchyard").rglob("*") if path.is_file()}
    names = {name for name in names if "__pycache__" not in name}
    sources = {path.name for path in (SOURCE / "python/switchyard").iterdir() if path.is_file()}
    assert sources < names and "bin/switchyard" in names
    assert len(names - sources) == 2 and any(name.startswith("_native.") for name in names - sources)
    assert not (site / "include").exists() and not (site / "lib").exists()
    module = next((site / "switchyard").glob("_native.*.so"))
    for file in (module, site / "switchyard/bin/switchyard"):
        path = re.search(r"R(?:UN)?PATH.*\[(.*)\]", run("readelf", "-d", file))[1]
        assert all(part.startswith("$ORIGIN") for part in path.split(":")), path
