#!/usr/bin/env python3
"""perf's samples (`perf script`, on standard input) as a table of operations, folded stacks and a flame graph: the second half of tools/profile.sh."""

import argparse
import collections
import html
import json
import pathlib
import re
import sys
import zlib

# The frame nearest to the leaf that fits one names the operation. Code that the engine makes for its products has no name.
OPERATIONS = [
    ("waiting of threads", r"gomp_\w*(barrier|wait)|futex|sched_yield|do_spin|Team::wait"),
    ("attention", r"kernels::.*(attention|scores|differentiate_|mix_values|softmax)|ops::.*[aA]ttention"),
    ("cross entropy and logits", r"[cC]ross_?[eE]ntropy"),
    ("optimizer", r"adafactor|adamw|Adafactor|AdamW|Update::|update_kernels"),
    ("norms", r"rms_norm|RmsNorm"),
    ("hidden layer", r"hidden_layer|HiddenLayer"),
    ("dispatch and combine", r"dispatch_rows|combine_rows|DispatchRows|CombineRows|TokenRows"),
    ("routing", r"rout(e|ing|er)_|::route|assign"),
    ("products", r"brgemm|kernels::.*(multiply|transpose|pack)|^\[kernels made at run time\]$|jit_|dnnl|mkl_|[gG]emm"),
    ("embedding and residual", r"embedding|Embedding|scatter_add|add_to_stream|AddResidual"),
    ("dropout and noise", r"drop_channels|[nN]oise"),
    ("casts of weights", r"cast_weights"),
]
MADE = "[kernels made at run time]"  # by oneDNN
FRAME = re.compile(r"^\s+[0-9a-f]+ (.*) \((.*)\)$")


def short(symbol):
    """A function's name without its arguments, templates and namespaces of ours."""
    symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    previous = None
    while previous != symbol:
        previous, symbol = symbol, re.sub(r"<[^<>]*>|\([^()]*\)", "", symbol)
    symbol = symbol.replace("switchyard::", "").replace("::::", "::").strip()
    return re.sub(r"^(void|float|bool|at::Tensor) ", "", symbol).removesuffix(" const") or "?"


def samples(lines):
    """Stacks, the outermost function first."""
    stack = []
    for line in lines:
        if match := FRAME.match(line):
            symbol, library = match.groups()
            made = re.search(r"/perf-\d+\.map$", library)  # code that was made while the program ran
            stack.append(symbol if symbol != "[unknown]" else MADE if made else f"[{pathlib.Path(library).name}]")
        elif not line.strip() and stack:
            yield stack[::-1]
            stack = []
    if stack:
        yield stack[::-1]


def operation_of(stack):
    for frame in reversed(stack):
        for name, pattern in OPERATIONS:
            if re.search(pattern, frame):
                return name
    return "the rest of ATen" if any(re.search(r"\bat::|torch::|c10::", frame) for frame in stack) else "everything else"


def flame_graph(tree, total):
    """An SVG: width is the share of samples, the callers below, the whole name and share on pointing at a box."""
    boxes, deepest = [], 0
    queue = [(tree, "all", 0.0, 0)]
    while queue:
        node, name, left, depth = queue.pop()
        width = 1200.0 * node["count"] / total
        if width < 0.3:
            continue
        deepest = max(deepest, depth)
        boxes.append((left, depth, width, name, node["count"]))
        for child, below in sorted(node["below"].items()):
            queue.append((below, child, left, depth + 1))
            left += 1200.0 * below["count"] / total
    height = 17 * (deepest + 1)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 {height}" font-family="monospace" font-size="11">']
    for left, depth, width, name, count in boxes:
        top, shade = height - 17 * (depth + 1), zlib.crc32(name.encode()) % 60
        label = html.escape(name[: max(0, int(width / 6.7))])
        parts.append(f'<g><title>{html.escape(name)}: {100 * count / total:.2f} %</title><rect x="{left:.2f}" y="{top}" width="{max(0.2, width - 0.4):.2f}" height="16" '
                     f'fill="hsl({20 + shade // 2},80%,{60 + shade // 4}%)"/><text x="{left + 3:.2f}" y="{top + 12}">{label}</text></g>')  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=pathlib.Path, help="what `switchyard bench train --json` printed")
    parser.add_argument("--stacks", type=pathlib.Path, help="folded stacks, one a line with its count")
    parser.add_argument("--svg", type=pathlib.Path, help="flame graph")
    chosen = parser.parse_args()
    operations, folded, leaves = collections.Counter(), collections.Counter(), collections.defaultdict(collections.Counter)
    tree = {"count": 0, "below": {}}
    for stack in samples(sys.stdin):
        operation, names = operation_of(stack), [short(frame) for frame in stack]
        operations[operation] += 1
        leaves[operation][names[-1]] += 1
        folded[";".join(names)] += 1
        node = tree
        node["count"] += 1
        for name in names:
            node = node["below"].setdefault(name, {"count": 0, "below": {}})
            node["count"] += 1
    total = sum(operations.values())
    if total == 0:
        sys.exit("profile: perf gave no samples; the step may have been shorter than its warm-up: ask for more --repeats")
    step = json.loads(chosen.bench.read_text()) if chosen.bench else {}
    print(f"{total} samples" + (f", {1e3 * step['step_seconds']:.1f} ms a step, {step['tokens_per_second']:,.0f} tokens/s" if step else ""))
    for name, count in operations.most_common():
        most = ", ".join(f"{leaf} {100 * part / total:.1f}" for leaf, part in leaves[name].most_common(3))
        print(f"{name:<26} {100 * count / total:5.1f} %   {most}")
    if chosen.stacks:
        chosen.stacks.write_text("".join(f"{stack} {count}\n" for stack, count in sorted(folded.items())))
    if chosen.svg:
        chosen.svg.write_text(flame_graph(tree, total))


if __name__ == "__main__":
    main()
