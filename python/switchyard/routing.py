"""Which experts tokens take."""

from __future__ import annotations

import dataclasses
import typing

__all__ = ["LayerRouting", "Routing", "read_routing"]


@dataclasses.dataclass(frozen=True)
class LayerRouting:
    """What one sparse layer did with a text's tokens."""

    layer: str  # "encoder.1": stack and block
    num_experts: int
    experts: list[list[int]]  # of each token its experts by falling gate; none where it was dropped
    gates: list[float]  # of each token its first expert's

    def load(self) -> list[float]:
        """Each expert's share of all choices."""
        counts = [0] * self.num_experts
        for own in self.experts:
            for expert in own:
                counts[expert] += 1
        return [count / max(1, sum(counts)) for count in counts]


@dataclasses.dataclass(frozen=True)
class Routing:
    """A text's way through the sparse layers. The decoder's tokens are its inputs: the start token and all of the output
    but its last."""

    encoder_pieces: list[str]
    encoder: list[LayerRouting]
    decoder_pieces: list[str]
    decoder: list[LayerRouting]

    @property
    def layers(self) -> list[LayerRouting]:
        return [*self.encoder, *self.decoder]


def read_routing(json: dict[str, typing.Any]) -> Routing:
    """Of the JSON that the server's /routing answers."""
    def part(name: str) -> tuple[list[str], list[LayerRouting]]:
        stack = json.get(name, {"tokens": [], "layers": []})
        return [token["piece"] for token in stack["tokens"]], [LayerRouting(**layer) for layer in stack["layers"]]

    return Routing(*part("encoder"), *part("decoder"))
