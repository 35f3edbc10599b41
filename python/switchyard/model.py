"""Models opened for inference: generation, scores, hidden states, routing."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import typing

import torch

from .native import _native
from .routing import LayerRouting, Routing, read_routing

__all__ = ["Forward", "LayerRouting", "Model", "Output", "Routing", "Score", "Stream", "Vocabulary"]

Vocabulary = _native.Vocabulary

Tokens = typing.Union[str, collections.abc.Sequence[int]]  # a text, or ids as they are (an EOS as given)


@dataclasses.dataclass(frozen=True)
class Output:
    """What a prompt gave."""

    prompt: str  # "" where ids were given
    text: str
    ids: list[int]
    score: float  # greedy and sampling: log-probability of the ids; beams: Hugging Face's sequence score
    filled: str | None = None  # the prompt with its blanks filled in, if it has any
    others: tuple[Output, ...] = ()  # further beams or samples


@dataclasses.dataclass(frozen=True)
class Score:
    """The log-probability of a target, in nats."""

    score: float
    token_scores: list[float]  # of each token given the prompt and the tokens before it; they add up to `score`


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a forward pass gave. Tensors hold no gradient and are nobody else's."""

    encoder_hidden: torch.Tensor  # [batch, length, d_model]
    decoder_hidden: torch.Tensor | None  # [batch, decoder_length, d_model]
    logits: torch.Tensor | None  # [batch, decoder_length, vocab_size] float32
    loss: torch.Tensor | None  # [] mean cross entropy over labels that are not -100
    router_logits: dict[str, torch.Tensor]  # "encoder.1": [batch, length, num_experts] float32
    expert_index: dict[str, torch.Tensor]  # "encoder.1": [batch, length], -1 where a token was dropped


class Stream(collections.abc.Iterator[str]):
    """A text as it grows; `output` is there at its end."""

    output: Output | None = None

    def __init__(self, generation: _native.Generation) -> None:
        self._generation = generation
        self._more = True

    def __next__(self) -> str:
        while True:
            if text := self._generation.take_text():
                return text
            if not self._more:
                if self.output is None:
                    self.output = _output(self._generation.results()[0])
                raise StopIteration
            self._more = self._generation.step()


class Model:
    """A model with its vocabulary: Switch, T5, mT5, umT5 and Flan in Hugging Face's layout, or a run of `train`."""

    def __init__(self, native: _native.Model) -> None:
        self._native = native

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, dtype: str = "fp32", device: str = "auto") -> Model:
        """Opens a model directory, a run's newest checkpoint (its folder), or its best one ("RUN@best").

        `dtype` is what is computed in: "fp32", "bf16", "fp64", or "auto" (bf16 where the processor has it). Experts are
        read from the disk when a token first takes them. Raises ValueError for files that are missing or damaged.
        """
        return cls(_native.Model(os.fspath(path), dtype, device))

    @property
    def folder(self) -> pathlib.Path:
        return self._native.folder

    @property
    def vocabulary(self) -> Vocabulary | None:
        """None for a model without tokenizer files: it takes and gives ids."""
        return self._native.vocabulary

    @property
    def config(self) -> dict[str, typing.Any]:
        """The keys of [model] in a run file: d_model, num_experts, ..."""
        return self._native.config

    @typing.overload
    def generate(self, prompts: str, *, slots: int = 8, **search: typing.Any) -> Output: ...
    @typing.overload
    def generate(self, prompts: collections.abc.Sequence[Tokens], *, slots: int = 8, **search: typing.Any) -> list[Output]: ...
    @typing.overload
    def generate(self, prompts: collections.abc.Sequence[int], *, slots: int = 8, **search: typing.Any) -> Output: ...
    def generate(self, prompts: typing.Any, *, slots: int = 8, **search: typing.Any) -> Output | list[Output]:
        """What the model makes of a prompt (a text, or its ids), or of each of a list of them.

        The search's keys are a request's: max_tokens, min_tokens, n, seed, temperature, top_k, top_p, typical_p, beams,
        length_penalty, early_stopping, repetition_penalty, no_repeat_ngram_size, bad_words, stop, decoder_prompt. An
        output does not depend on the prompts beside it; a sample depends on the seed and its prompt's place in the list.
        `slots`: prompts that are decoded together.
        """
        if _is_one(prompts):
            return self._generate([prompts], slots, search)[0]
        return self._generate(prompts, slots, search)

    def _generate(self, prompts: collections.abc.Iterable[Tokens], slots: int, search: dict[str, typing.Any]) -> list[Output]:
        generation = _native.Generation(self._native, [{**search, "prompt": _listed(each)} for each in prompts], slots, False)
        while generation.step():
            pass
        return [_output(result) for result in generation.results()]

    def stream(self, prompt: Tokens, **search: typing.Any) -> Stream:
        """The output's text as it grows, for greedy decoding and sampling; keys as for `generate`."""
        return Stream(_native.Generation(self._native, [{**search, "prompt": _listed(prompt)}], 1, True))

    def score(self, pairs: collections.abc.Iterable[tuple[Tokens, Tokens]]) -> list[Score]:
        """The log-probability of each pair's second part after its first. Texts get an EOS at their end."""
        return [Score(*self._native.score(self._ids(prompt), self._ids(target))) for prompt, target in pairs]

    @typing.overload
    def encode(self, texts: str) -> torch.Tensor: ...  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    @typing.overload
    def encode(self, texts: collections.abc.Sequence[Tokens]) -> list[torch.Tensor]: ...
    @typing.overload
    def encode(self, texts: collections.abc.Sequence[int]) -> torch.Tensor: ...
    def encode(self, texts: typing.Any) -> torch.Tensor | list[torch.Tensor]:
        """The encoder's hidden states [length, d_model] of a text (or its ids), or of each of a list of them.

        Each passes the encoder as if by itself, as in generation; a text has its EOS at its end.
        """
        if _is_one(texts):
            return self._native.encode([self._ids(texts)])[0]
        ids = [self._ids(text) for text in texts]
        return [states for first in range(0, len(ids), 16) for states in self._native.encode(ids[first : first + 16])]

    def forward(
        self,
        ids: typing.Any,
        decoder_ids: typing.Any = None,
        *,
        labels: typing.Any = None,
        mask: typing.Any = None,
        decoder_mask: typing.Any = None,
    ) -> Forward:
        """One pass in evaluation mode over ids [batch, length] (tensors, arrays or lists of integers).

        With `labels` (-100 is ignored) the decoder reads them shifted right, unless `decoder_ids` says otherwise, and there
        is a loss. `mask`: 1 for tokens, 0 for padding; all tokens if it is left out. The decoder runs where it has ids.
        """
        return Forward(
            **self._native.forward(
                _table("ids", ids),
                _table("mask", mask) if mask is not None else None,
                _table("decoder_ids", decoder_ids) if decoder_ids is not None else None,
                _table("decoder_mask", decoder_mask) if decoder_mask is not None else None,
                _table("labels", labels) if labels is not None else None,
            )
        )

    def routing(self, text: Tokens, output: Tokens | None = None) -> Routing:
        """Which experts each token takes, layer by layer: the encoder's tokens, and with `output` also the decoder's."""
        return read_routing(self._native.routing(self._ids(text), self._ids(output) if output is not None else []))

    def _ids(self, tokens: Tokens) -> list[int]:
        if not isinstance(tokens, str):
            return [int(each) for each in tokens]
        if self.vocabulary is None:
            raise ValueError(f"{self.folder} has no vocabulary; give a list of ids")
        return [*self.vocabulary.encode(tokens), self.vocabulary.eos_id]


def _is_one(prompts: typing.Any) -> bool:
    """Whether this is one prompt: a text, or its ids."""
    if isinstance(prompts, str):
        return True
    if isinstance(prompts, torch.Tensor):
        return prompts.dim() == 1
    return len(prompts) > 0 and hasattr(prompts[0], "__index__")


def _listed(tokens: Tokens) -> str | list[int]:
    return tokens if isinstance(tokens, str) else [int(each) for each in tokens]


def _output(result: dict[str, typing.Any]) -> Output:
    others = tuple(Output(result["prompt"], **other) for other in result.pop("others", ()))
    return Output(**result, others=others)


def _table(name: str, given: typing.Any) -> torch.Tensor:
    table = torch.as_tensor(given)
    if table.dim() != 2 or table.is_floating_point() or table.is_complex():
        raise ValueError(f"{name}: expected integers [batch, length], got {table.dtype} {list(table.shape)}")
    return table.detach().to("cpu", torch.int64).contiguous()
