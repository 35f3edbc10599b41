"""Plans of large models over many devices."""

from __future__ import annotations

import os
import typing

from .native import _native

__all__ = ["plan"]


def plan(model: str | os.PathLike[str], **options: typing.Any) -> dict[str, typing.Any]:
    """How a model can be spread over a cluster: memory, traffic and time of each layout, the fastest first.

    `model` is a preset's name or the path of a run file. The options are those of `switchyard plan`, with underscores:
    `devices=512, device="h200", memory_bandwidth=4800`; `set=["train.batch_size=64"]` gives a repeatable one several
    times. The result is what `switchyard plan --json` prints: "parameters", "flops_per_sequence", "layouts", ...

    Raises ValueError where the program would refuse.
    """
    arguments = [os.fspath(model)]
    for name, value in options.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            arguments += [f"--{name.replace('_', '-')}", os.fspath(each) if isinstance(each, os.PathLike) else str(each)]
    return _native.plan(arguments)
