#!/usr/bin/env python3
"""README's table of speeds, made of bench/results/*.json.

    scripts/speed_table.py             prints it
    scripts/speed_table.py --update    writes it to README.md, between its marks
"""

import json
import pathlib
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- scripts/speed_table.py -->\n", "<!-- end of table -->\n"


def read(name: str) -> dict:
    return json.loads((SOURCE / "bench/results" / f"{name}.json").read_text())


def line(job: str, figures: dict, kind: str, unit: str, processor: str) -> str:
    """One comparison: ours, the other's, and the median of the rounds' ratios with their spread."""
    ratio = figures[f"ratio, {kind}"]
    rounds, other = ratio["rounds"], ratio["over"]
    spread = f" ({min(rounds):.2f} - {max(rounds):.2f})" if len(rounds) > 1 else ""
    ours, theirs = figures[f"switchyard {kind}"]["median"], figures[other]["median"]
    return f"| {job} | {kind} | {ours:,.0f} {unit} | {other} {theirs:,.0f} | {ratio['ratio']:.2f}{spread} | {processor} |"


def table() -> str:
    lines = ["| | | switchyard | | times as fast | processor, 2 threads |", "|---|---|---|---|---|---|"]
    peers, generation = read("peers"), read("ctranslate2")
    for kind in ("bf16", "fp32"):
        lines.append(line("training, switch-mini-8", peers["train"], kind, "tokens/s", peers["processor"]))
    for batch, figures in generation["t5_base"].items():
        for kind in ("fp32", "bf16", "int8"):
            lines.append(line(f"generation, t5-base, {batch}", figures, kind, "tokens/s", generation["processor"]))
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if "--update" in sys.argv[1:]:
        path = SOURCE / "README.md"
        path.write_text(with_table(path.read_text()))
    else:
        print(table(), end="")
