"""Switchyard: train, run and study Switch Transformers (sparse T5 models).

    >>> import switchyard
    >>> model = switchyard.Model.load("runs/books")
    >>> model.generate("The <extra_id_0> sat by the door.", max_tokens=20).filled
    >>> for step in switchyard.train("run.toml", out="runs/books"): print(step.number, step.loss)

What the program refuses with exit code 2 is a `ValueError` with the same message. Everything computes without Python's
lock, and Ctrl-C is heard after the step that is running. Threads are torch's: `torch.set_num_threads(n)`. What the
libraries say goes to the logger "switchyard". `python -m switchyard` is the program itself.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from .model import Forward, LayerRouting, Model, Output, Routing, Score, Stream, Vocabulary
    from .planning import plan
    from .training import Step, Training, train

_HOMES = {
    "model": ("Forward", "LayerRouting", "Model", "Output", "Routing", "Score", "Stream", "Vocabulary"),
    "planning": ("plan",),
    "training": ("Step", "Training", "train"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> typing.Any:
    """Imports torch and the libraries when something of them is wanted: `python -m switchyard` needs neither."""
    if name == "__version__":
        return importlib.import_module(".native", __name__).__version__
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]
