"""scripts/speed_table.py: README's table is that of bench/results, and says what these say."""

import json
import sys

from conftest import SOURCE

sys.path.insert(0, str(SOURCE / "scripts"))
import speed_table  # noqa: E402


def test_the_readme_has_the_table_of_the_results():
    readme = (SOURCE / "README.md").read_text()
    assert speed_table.with_table(readme) == readme, "run scripts/speed_table.py --update"


def test_figures_are_those_of_the_results():
    figures = json.loads((SOURCE / "bench/results/peers.json").read_text())["train"]
    ratio = figures["ratio, bf16"]
    row = next(line for line in speed_table.table().splitlines() if "training" in line and "| bf16" in line)
    assert f"{figures['switchyard bf16']['median']:,.0f} tokens/s" in row
    assert f"{ratio['over']} {figures[ratio['over']]['median']:,.0f}" in row and f"{ratio['ratio']:.2f}" in row
