import collections.abc
import os
import pathlib
import typing

import torch

__version__: str
torch_version: str
instructions: str

def plan(arguments: collections.abc.Sequence[str]) -> dict[str, typing.Any]: ...
def request_keys() -> list[str]: ...
def set_message_sink(say: typing.Callable[[str], object] | None) -> None: ...

class Vocabulary:
    """Text to ids and back, as T5 has them: SentencePiece's pieces, the sentinels <extra_id_0> ... behind them, and what a
    tokenizer.json adds."""

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Vocabulary:
        """Of a spiece.model, a model directory or a run's folder."""
    @staticmethod
    def train(text: collections.abc.Sequence[str | os.PathLike[str]], size: int, out: str | os.PathLike[str]) -> None:
        """Makes a vocabulary of `size` pieces from files or folders of text and writes it to `out`, a spiece.model."""
    def encode(self, text: str) -> list[int]:
        """Ids of the text, without EOS; a literal <extra_id_N> becomes its sentinel."""
    def decode(self, ids: collections.abc.Sequence[int]) -> str:
        """The text of ids; pad and EOS are nothing."""
    def piece(self, id: int) -> str:
        """How an id is written: "▁the", "<extra_id_0>"."""
    def sentinel_id(self, number: int) -> int:
        """The id of <extra_id_number>."""
    def __len__(self) -> int:
        """One more than the highest id."""
    @property
    def num_sentinels(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def unk_id(self) -> int: ...

class Model:
    def __init__(self, path: str | os.PathLike[str], dtype: str, device: str) -> None: ...
    @property
    def folder(self) -> pathlib.Path: ...
    @property
    def vocabulary(self) -> Vocabulary | None: ...
    @property
    def config(self) -> dict[str, typing.Any]: ...
    def encode(self, prompts: collections.abc.Sequence[collections.abc.Sequence[int]]) -> list[torch.Tensor]: ...
    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        decoder_ids: torch.Tensor | None,
        decoder_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> dict[str, typing.Any]: ...
    def score(
        self, prompt: collections.abc.Sequence[int], target: collections.abc.Sequence[int]
    ) -> tuple[float, list[float]]: ...
    def routing(
        self, input: collections.abc.Sequence[int], output: collections.abc.Sequence[int]
    ) -> dict[str, typing.Any]: ...

class Generation:
    def __init__(self, model: Model, requests: list[dict[str, typing.Any]], slots: int, streams: bool) -> None: ...
    def step(self) -> bool: ...
    def take_text(self) -> str: ...
    def results(self) -> list[dict[str, typing.Any]]: ...

class Training:
    def __init__(
        self,
        config: str | os.PathLike[str] | dict[str, typing.Any],
        settings: list[str],
        out: str,
        resume: bool,
        allow_changes: bool,
        device: str,
    ) -> None: ...
    def step(self) -> dict[str, typing.Any]: ...
    def save(self) -> pathlib.Path: ...
    @property
    def is_done(self) -> bool: ...
    @property
    def steps_done(self) -> int: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def checkpoint(self) -> pathlib.Path | None: ...
    @property
    def run_toml(self) -> str: ...
