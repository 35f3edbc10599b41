#!/usr/bin/env python3
"""One word for one thing: synonyms that are refused, where they are refused, and the word to write.

Run keys and texts for users name precisions as run files do (fp32), comments of C++ as its types do (f32), never both in both. Words in quotes
or backticks are somebody's names and stay.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = {  # in code, run keys and metrics, as whole words or parts between underscores
    "ckpt": "checkpoint", "seq_len": "..._length", "seqlen": "..._length", "hidden_size": "d_model", "embed_dim": "d_model", "ffn_dim": "d_ff",
    "n_heads": "num_heads", "n_experts": "num_experts", "num_expert": "num_experts", "bsz": "batch_size", "batchsize": "batch_size", "grad_norm": "gradient_norm",
    "lr": "learning_rate", "aux_loss": "load_balance_loss", "drop_rate": "dropout_rate",
    "dropped_share": "dropped_fraction", "optimiser": "optimizer", "utils": "what it is for", "manager": "what it does",
}
COMMENTS = {"fp32": "f32", "fp64": "f64", "hyperparameter": "setting or rate", "auxiliary loss": "load balance loss, or router losses",
            "sequence length": "encoder or decoder length", "learning-rate": "learning rate", "FFN": "feed-forward network"}
TEXTS = {"f32": "fp32", "f64": "fp64", "float32": "fp32", "hyperparameter": "setting", "auxiliary loss": "balance loss", "FFN": "feed-forward network"}
FOREIGN = re.compile(r"router_aux_loss_coef")  # of Hugging Face's config.json
QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|`[^`\n]*`")


def files(*patterns: str) -> list[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split() if (ROOT / name).is_file()]


def find(words: dict[str, str], line: str, part_of_name: bool) -> list[str]:
    """Refused words of a line with what to write. A part of a name stands between underscores or at its ends."""
    faults = []
    for word, instead in words.items():
        before, behind = (r"(?<![A-Za-z])", r"(?![A-Za-z])") if part_of_name else (r"(?<![\w.])", r"(?![\w])")
        if re.search(before + re.escape(word) + behind, line):
            faults.append(f"{word!r}, write {instead}")
    return faults


def cpp_faults(text: str) -> list[tuple[int, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        code, slashes, comment = line.partition("//") if "://" not in line else (line, "", "")
        names = re.sub(r"/\*.*?\*/", "", QUOTED.sub(lambda quoted: quoted[0] if re.fullmatch(r'"\w+"', quoted[0]) else "", FOREIGN.sub("", code)))
        found += [(number, fault) for fault in find(NAMES, names, part_of_name=True)]
        found += [(number, fault) for fault in find(COMMENTS, QUOTED.sub("", comment), part_of_name=False) if slashes]
    return found


def text_faults(text: str) -> list[tuple[int, str]]:
    """A document's or run file's prose: not its blocks of output, nor what stands in backticks."""
    found, inside = [], False
    for number, line in enumerate(text.splitlines(), 1):
        inside ^= line.startswith("```")
        if not inside:
            found += [(number, fault) for fault in find(TEXTS, QUOTED.sub("", line), part_of_name=False)]
    return found


def main() -> None:
    faults, count = [], 0
    for check, patterns in ((cpp_faults, ("src/*.h", "src/*.cc", "tests/*.h", "tests/*.cc", "examples/*.h", "examples/*.cc")),
                            (text_faults, ("*.md", "configs/*.toml"))):
        for path in files(*patterns):
            faults += [f"{path.relative_to(ROOT)}:{number}: {fault}" for number, fault in check(path.read_text(errors="replace"))]
            count += 1
    if faults:
        sys.exit("\n".join(faults) + f"\ncheck_words: {len(faults)} faults")
    print(f"words: {count} files, one for each thing")


if __name__ == "__main__":
    main()
