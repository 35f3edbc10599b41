"""Training runs, a step at a time."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import typing

from .model import Model
from .native import _native

__all__ = ["Step", "Training", "train"]

Callback = typing.Callable[["Training", "Step"], object]


@dataclasses.dataclass(frozen=True)
class Step:
    """One update of the weights."""

    number: int  # from 1
    loss: float  # what was minimised
    cross_entropy: float  # nats a target token
    metrics: dict[str, typing.Any]  # the step's line of metrics.jsonl: learning_rate, dropped_fraction by layer, ...
    evaluation: dict[str, float] | None  # held-out numbers, where an evaluation was due
    checkpoint: pathlib.Path | None  # where one was due


class Training(collections.abc.Iterator[Step]):
    """A run that is open: iterate over its steps, or `run()` what is left of it. Made by `train()`."""

    def __init__(self, native: _native.Training, callbacks: collections.abc.Sequence[Callback]) -> None:
        self._native = native
        self._callbacks = callbacks
        self._stopped = False

    def __next__(self) -> Step:
        """Trains one step, with the evaluation and the checkpoint that are due after it; then the callbacks are called."""
        if self._stopped or self._native.is_done:
            if self._native.checkpoint is None:
                self._native.save()
            raise StopIteration
        line = self._native.step()
        evaluation = line.pop("evaluation", None)
        step = Step(line["step"], line["loss"], line["cross_entropy"], line, evaluation, self._native.checkpoint)
        for callback in self._callbacks:
            callback(self, step)
        return step

    def run(self) -> pathlib.Path:
        """Trains to the end and returns the last checkpoint. Ctrl-C saves one before it is raised."""
        try:
            for _ in self:
                pass
        except KeyboardInterrupt:
            self.save()
            raise
        return self.save()

    def stop(self) -> None:
        """Ends the run after the present step, saving a checkpoint: for callbacks."""
        self._stopped = True

    def save(self) -> pathlib.Path:
        """A checkpoint of the present step, from which a run continues bit for bit; returns its folder."""
        return self._native.save()

    def model(self, **options: typing.Any) -> Model:
        """The model as it is now, through a checkpoint; options as for `Model.load`."""
        return Model.load(self.save(), **options)

    @property
    def steps_done(self) -> int:
        return self._native.steps_done

    @property
    def num_steps(self) -> int:
        """At most; early stopping may end a run before."""
        return self._native.num_steps

    @property
    def num_parameters(self) -> int:
        return self._native.num_parameters

    @property
    def run_toml(self) -> str:
        """Every setting of the run, as DIR/run.toml has it."""
        return self._native.run_toml


def train(
    config: str | os.PathLike[str] | collections.abc.Mapping[str, collections.abc.Mapping[str, typing.Any]],
    out: str | os.PathLike[str],
    *,
    settings: collections.abc.Sequence[str] = (),
    callbacks: Callback | collections.abc.Sequence[Callback] = (),
    resume: bool = False,
    allow_changes: bool = False,
    device: str = "auto",
) -> Training:
    """Opens a training run in the folder `out`, as `switchyard train` does; its steps are what one iterates over.

        for step in switchyard.train("run.toml", out="runs/mini"):
            print(step.number, step.loss)
        switchyard.train({"model": {"preset": "switch-mini-8"}, "data": {...}}, out="runs/mini").run()

    `config`: the path of a run file, or its sections as dicts (paths are then relative to the working directory).
    `settings`: "section.key=value" each, over either. `callbacks`: called with the training and each step; a callback may
    end the run by `training.stop()`. `resume` continues from the newest checkpoint in `out`, bit for bit, and
    `allow_changes` also where settings differ from its. Under torchrun every rank calls this, and trains its part.

    Raises ValueError where the program would refuse, here or at a step.
    """
    given: typing.Any = config
    if isinstance(config, collections.abc.Mapping):
        given = {name: dict(keys) if isinstance(keys, collections.abc.Mapping) else keys for name, keys in config.items()}
    native = _native.Training(given, list(settings), os.fspath(out), resume, allow_changes, device)
    return Training(native, [callbacks] if callable(callbacks) else list(callbacks))
