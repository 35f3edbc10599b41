#!/usr/bin/env python3
"""Checks that the folders of src/ depend on each other one way, in their #includes and in what they link.

DEPENDS is the one place where the direction is written down. A folder may include what is named for it and whatever
those may include. Needs nothing but Python; takes a few milliseconds.
"""

import pathlib
import re
import sys

DEPENDS = {
    "base": [],
    "kernels": ["base"],
    "metrics": ["base"],
    "text": ["base"],
    "data": ["text"],
    "tasks": ["data", "metrics"],
    "ops": ["kernels"],
    "model": ["ops"],
    "parallel": ["model"],
    "plan": ["parallel"],
    "optim": ["model"],
    "checkpoint": ["model"],
    "generate": ["model", "text"],
    "eval": ["tasks", "generate"],
    "train": ["eval", "optim", "checkpoint", "parallel", "tasks"],
    "report": ["base"],
    "serve": ["generate", "report"],
    "cli": ["train", "report", "tasks", "plan", "serve"],
}
# Folders that are plain C++: no torch header, so that they compile in a second and run without a tensor.
WITHOUT_TORCH = {"base", "metrics", "text", "data", "tasks", "report"}
# Internals of torch, without promises from one version to the next: each in one file.
ONLY_IN = {"torch/csrc/distributed/": "parallel/process_group.cc"}

SRC = pathlib.Path(__file__).resolve().parent.parent / "src"
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
TORCH = re.compile(r"^(ATen|c10|torch)/")


def closure(folder: str, path: tuple[str, ...] = ()) -> set[str]:
    """Everything that `folder` may include, itself too. Exits on a cycle."""
    if folder in path:
        sys.exit(f"check_includes: DEPENDS has a cycle: {' -> '.join(path + (folder,))}")
    return {folder}.union(*(closure(below, path + (folder,)) for below in DEPENDS[folder]))


def check_file(path: pathlib.Path, folder: str, allowed: set[str]) -> list[str]:
    faults = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, target = match.groups()
        place = f"src/{path.relative_to(SRC)}:{number}: "
        if TORCH.match(target) and folder in WITHOUT_TORCH:
            faults.append(f"{place}{folder}/ is plain C++ but includes <{target}>")
        for internals, only in ONLY_IN.items():
            if target.startswith(internals) and str(path.relative_to(SRC)) != only:
                faults.append(f"{place}<{target}> may be included in src/{only} alone")
        if quote != '"':
            continue
        if not (SRC / target).is_file():
            faults.append(f'{place}"{target}" is not a file of src/; write "folder/file.h"')
        elif target.split("/")[0] not in allowed:
            faults.append(f'{place}{folder}/ may not include "{target}"; it may include {", ".join(sorted(allowed))}')
    return faults


def check_links(folder: str, allowed: set[str]) -> list[str]:
    """The libraries in a folder's CMakeLists.txt are those that it may include, too."""
    path = SRC / folder / "CMakeLists.txt"
    if not path.is_file():
        return [f"src/{folder}: no CMakeLists.txt"]
    text = re.sub(r"#.*", "", path.read_text())
    linked = set(re.findall(r"\bswitchyard_([a-z]+)\b", text)) - {"module", "test"}
    faults = [f"src/{folder}/CMakeLists.txt: may not link switchyard_{name}" for name in sorted(linked - allowed)]
    if folder in WITHOUT_TORCH and "torch::" in text:
        faults.append(f"src/{folder}/CMakeLists.txt: {folder}/ is plain C++ but links torch")
    return faults


def main() -> None:
    faults, count = [], 0
    allowed = {folder: closure(folder) for folder in DEPENDS}
    for directory in sorted(path for path in SRC.iterdir() if path.is_dir() and any(path.iterdir())):
        folder = directory.name
        if folder not in DEPENDS:
            faults.append(f"src/{folder}: not in DEPENDS of scripts/check_includes.py")
            continue
        files = sorted(path for path in directory.rglob("*") if path.suffix in {".h", ".cc"})
        count += len(files)
        for path in files:
            faults += check_file(path, folder, allowed[folder])
        faults += check_links(folder, allowed[folder])
    if faults:
        sys.exit("\n".join(faults) + f"\ncheck_includes: {len(faults)} faults")
    print(f"folder dependencies: {count} files, fine")


if __name__ == "__main__":
    main()
