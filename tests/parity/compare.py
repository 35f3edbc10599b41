"""How two tensors are held equal, and how the program is run."""

import os
import pathlib
import subprocess

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD_PROGRAM", pathlib.Path(__file__).parents[2] / "build/release/switchyard"))


def relative_error(actual: torch.Tensor, expected: torch.Tensor, noise: float = 0.0) -> float:
    """Largest difference, beyond `noise`, over the largest expected magnitude; infinite where one side is not a number or
    shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max()
    scale = expected.double().abs().max()
    if not torch.isfinite(difference) or not torch.isfinite(scale):
        return float("inf")
    difference = (difference - noise).clamp(min=0)
    if scale == 0:
        return 0.0 if difference == 0 else float("inf")
    return (difference / scale).item()


def check(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float, noise: float = 0.0) -> None:
    error = relative_error(actual, expected, noise)
    assert error <= tolerance, (
        f"{name}: relative error {error:.3g}, allowed {tolerance:g}; largest {actual.abs().max():.3g} and {expected.abs().max():.3g}, "
        f"shapes {list(actual.shape)} and {list(expected.shape)}"
    )


def switchyard(*arguments, stdin: str | None = None) -> str:
    """Runs the program; returns what it printed. Fails with its own message if it does."""
    command = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout


def forward(model: pathlib.Path, inputs: dict, folder: pathlib.Path, *options: str) -> dict:
    """`switchyard forward` on `inputs`; its tensors by name. Two threads where there is work for two."""
    threads = 2 if inputs["input_ids"].numel() > 256 else 1
    save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, folder / "in.safetensors")
    switchyard("forward", "--model", model, "--inputs", folder / "in.safetensors",
               "--output", folder / "out.safetensors", "--threads", threads, *options)  # fmt: skip
    return load_file(folder / "out.safetensors")


def metadata(path: pathlib.Path) -> dict:
    """What a safetensors file says of itself; `switchyard forward` counts there how often a fast kernel ran."""
    with safe_open(path, "pt") as file:
        return file.metadata()
