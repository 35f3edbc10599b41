"""Every test that docs/switch.md names exists: `Suite.Test`, or `Suite.*` with at least one test."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).parents[1]
tests = "\n".join(path.read_text() for path in (root / "tests").rglob("*.cc"))
known = {f"{suite}.{test}" for suite, test in re.findall(r"TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", tests)}
suites = {name.split(".")[0] for name in known}
named = set(re.findall(r"\b[A-Z]\w+\.(?:[A-Z]\w+|\*)", (root / "docs/switch.md").read_text())) - {"Suite.Test"}
missing = sorted(name for name in named if name not in known and not (name.endswith(".*") and name[:-2] in suites))
if missing:
    sys.exit("docs/switch.md names tests that do not exist: " + ", ".join(missing))
print(f"paper map: {len(named)} tests named, all there")
