#!/usr/bin/env python3
"""Draws docs/sparse_layer.svg: one routing group of eight tokens passing a layer of four experts with two slots each.

    scripts/draw_sparse_layer.py > docs/sparse_layer.svg
"""

TOKENS = ["The", "cat", "sat", "by", "the", "old", "red", "door"]
CHOICES = [1, 0, 1, 2, 1, 0, 0, 2]  # each token's likeliest expert
EXPERTS, CAPACITY = 4, 2  # floor(8 tokens x factor 1.0 / 4 experts)
STEP, LEFT = 96, 70
STYLE = """
svg { --page: #ffffff; --text: #22262b; --quiet: #6b7178; --box: #f0f2f4; --kept: #2a6fb0; --drop: #c0392b; }
@media (prefers-color-scheme: dark) { svg { --page: #16181b; --text: #e4e6e8; --quiet: #9aa1a9; --box: #262b31; --kept: #6fb1ee; --drop: #f08a7d; } }
text { font: 13px system-ui, Arial, sans-serif; fill: var(--text); text-anchor: middle; }
.note { font-size: 12px; fill: var(--quiet); text-anchor: start; }
.residual { stroke: var(--quiet); stroke-dasharray: 4 4; }
.kept { stroke: var(--kept); stroke-width: 1.6; fill: none; }
.dropped { stroke: var(--drop); stroke-width: 1.6; stroke-dasharray: 4 4; }
.lost { font-size: 12px; fill: var(--drop); text-anchor: start; }
.name { stroke: var(--box); stroke-width: 6; paint-order: stroke; }
.expert { fill: var(--box); }
.slot { fill: var(--page); stroke: var(--quiet); }
"""


def slots() -> list[int | None]:
    """Each token's slot from 0 over all experts, in token order; None where its expert is full."""
    taken, given = [0] * EXPERTS, []
    for expert in CHOICES:
        given.append(expert * CAPACITY + taken[expert] if taken[expert] < CAPACITY else None)
        taken[expert] += 1
    return given


def column(number: float) -> float:
    return LEFT + STEP * number


def draw() -> str:
    width = LEFT + STEP * len(TOKENS) + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 404" width="{width}" height="404">',
             "<title>A sparse layer: group, slots, dropped tokens, residual</title>", f"<style>{STYLE}</style>",
             f'<rect width="{width}" height="404" style="fill: var(--page)"/>',
             '<text class="note" x="12" y="20">One routing group: whole sequences, left to right. The router gives each token its likeliest expert.</text>']
    for expert in range(EXPERTS):
        x = column(2 * expert) + 14
        parts.append(f'<rect class="expert" x="{x}" y="150" width="{2 * STEP - 24}" height="92" rx="6"/>')
    for number, slot in enumerate(slots()):
        x = column(number)
        parts.append(f'<line class="{"residual" if slot is not None else "dropped"}" x1="{x}" y1="58" x2="{x}" y2="334"/>')
    for expert in range(EXPERTS):
        parts.append(f'<text class="name" x="{column(2 * expert + 1)}" y="234">expert {expert}</text>')
    for slot in range(EXPERTS * CAPACITY):
        parts.append(f'<rect class="slot" x="{column(slot + 0.5) - 29}" y="164" width="58" height="46" rx="4"/>')
    for number, (token, slot) in enumerate(zip(TOKENS, slots())):
        x = column(number)
        parts.append(f'<text x="{x}" y="50">{token}</text>')
        if slot is None:
            parts += [f'<text x="{x}" y="352">x</text>', f'<text class="lost" x="{x + 6}" y="82">expert {CHOICES[number]} is full</text>']
            continue
        middle = column(slot + 0.5)
        parts += [f'<path class="kept" d="M{x} 58 C{x} 116 {middle} 104 {middle} 164"/>', f'<text x="{middle}" y="192">{token}</text>',
                  f'<path class="kept" d="M{middle} 210 C{middle} 290 {x} 270 {x} 334"/>', f'<text x="{x}" y="352">x + p E(x)</text>']
    parts.append(f'<text class="note" x="12" y="376">Dashed: the residual x. Capacity here: floor({len(TOKENS)} tokens x factor 1.0 / {EXPERTS} experts) = '
                 f'{CAPACITY} slots an expert.</text>')
    parts.append('<text class="note" x="12" y="394">A dropped token goes on as it is; an empty slot costs nothing.</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    print(draw(), end="")
