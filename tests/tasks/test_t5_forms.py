"""Every example of the shared data, string for string, against T5's preprocessors restated here from its source."""

import gzip
import json
import os
import pathlib
import re
import string
import subprocess

import numpy as np
import pytest

DATA = pathlib.Path(os.environ.get("SWITCHYARD_DATA", ""))
pytestmark = pytest.mark.skipif(
    not (DATA / "glue_cola").is_dir(), reason=f"SWITCHYARD_DATA={DATA} holds no task data: the folder glue_cola is missing"
)


def rows(path: str) -> list[dict]:
    with gzip.open(DATA / f"{path}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def examples(task: str, split: str, training: bool = False) -> list[dict]:
    command = [os.environ["TASK_EXAMPLES"], task, str(DATA), split] + (["train"] if training else [])
    run = subprocess.run(command, capture_output=True, check=True)
    return [json.loads(line) for line in run.stdout.decode().rstrip("\n").split("\n")]


def check(task: str, split: str, expected: list[tuple[str, str]], training: bool = False) -> None:
    found = [(example["inputs"], example["targets"]) for example in examples(task, split, training)]
    assert len(found) == len(expected)
    for one, wanted in zip(found, expected):
        assert one == wanted


def glue(row: dict, name: str, labels: list[str], fields: list[str] | None = None) -> tuple[str, str]:
    keys = fields or sorted(set(row) - {"label", "idx"})
    joined = " ".join([name] + [part for key in keys for part in (f"{key}:", row[key])])
    label = row["label"]
    return joined, label if isinstance(label, str) else "<unk>" if label == -1 else labels[label]


# folder: T5's name, labels, fields (None: all but label and idx, by name), splits. Strings as labels stand in the data.
GLUE = {
    "glue_cola": ("cola", ["unacceptable", "acceptable"], ["sentence"], ["train", "dev"]),
    "glue_sst2": ("sst2", ["negative", "positive"], None, ["train", "dev"]),
    "glue_wnli": ("wnli", ["not_entailment", "entailment"], None, ["train", "dev"]),
    "superglue_boolq": ("boolq", ["False", "True"], None, ["dev", "train_subset1000"]),
    "superglue_cb": ("cb", [], None, ["train", "dev"]),
    "superglue_copa": ("copa", ["choice1", "choice2"], None, ["train", "dev"]),
    "superglue_rte": ("rte", [], None, ["train", "dev"]),
    "superglue_wic": ("wic", ["False", "True"], ["sentence1", "sentence2", "word"], ["train", "dev"]),
    "superglue_axg": ("rte", [], ["hypothesis", "premise"], ["test"]),
    "anli": ("mnli", [], ["hypothesis", "premise"], ["test_r3", "train_r3_subset"]),
}


@pytest.mark.parametrize("task", GLUE)
def test_glue(task):
    name, labels, fields, splits = GLUE[task]
    for split in splits:
        check(task, split, [glue(row, name, labels, fields) for row in rows(f"{task}/{split}")])


def test_axb():
    renamed = [row | {"premise": row["sentence1"], "hypothesis": row["sentence2"]} for row in rows("superglue_axb/test")]
    check("superglue_axb", "test", [glue(row, "rte", [], ["hypothesis", "premise"]) for row in renamed])


def test_rte_as_in_glue():
    renamed = [row | {"sentence1": row["premise"], "sentence2": row["hypothesis"]} for row in rows("superglue_rte/dev")]
    check("glue_rte", "validation", [glue(row, "rte", [], ["sentence1", "sentence2"]) for row in renamed])


def stsb(row: dict) -> tuple[str, str]:
    rounded = np.round(np.float32(row["score"]) * np.float32(5)) / np.float32(5)
    return f"stsb sentence1: {row['sentence1']} sentence2: {row['sentence2']}", f"{rounded:.1f}"


def test_stsb():
    for split in ("train", "dev", "test"):
        check("glue_stsb", split, [stsb(row) for row in rows(f"glue_stsb/{split}")])
    german = [row for row in rows("stsb_multi/de") if row["split"] == "test"]
    check("stsb_multi.de", "test", [stsb(row) for row in german])


def multirc(row: dict) -> list[tuple[str, str]]:
    found = []
    for question in row["questions"]:
        for answer in question["answers"]:
            flat = {"question": question["question"], "answer": answer["text"], "paragraph": row["paragraph"]}
            joined, target = glue(
                flat | {"label": answer["label"]}, "multirc", ["False", "True"], ["question", "answer", "paragraph"]
            )
            found.append((re.sub("<(/)?b>", "", re.sub("<br>", " ", joined)), target))
    return found


def test_multirc():
    for split in ("train", "dev"):
        expected = [example for row in rows(f"superglue_multirc/{split}") for example in multirc(row)]
        check("superglue_multirc", split, expected)
    groups = [example["group"] for example in examples("superglue_multirc", "dev")]
    assert len(set(groups)) == sum(len(row["questions"]) for row in rows("superglue_multirc/dev"))


def fix_referent(row: dict) -> str:
    """TFDS' wsc.fixed."""
    referent = row["span1_text"]
    if referent in row["text"]:
        return referent
    first = row["text"].split()[row["span1_index"]][0]
    referent = (referent[0].lower() if first.islower() else referent[0].upper()) + referent[1:]
    return referent.rstrip(".").replace("\n", " ")


def wsc(row: dict) -> tuple[str, str]:
    words = row["text"].split(" ")
    at = row["span2_index"]
    if "Good for him," in row["text"]:
        blanked = row["text"].replace('"Good for him," he said. ', '"Good for X ,\" he said.')
    elif "might want to use it ," in row["text"]:
        blanked = row["text"].replace("might want to use it ,", "might want to use X ,")
    else:
        assert words[at] == row["span2_text"]
        blanked = " ".join(words[:at] + ["X"] + words[at + 1 :])
    return "wsc: " + blanked.replace(" X ", f" *{row['span2_text']}* "), fix_referent(row)


def test_wsc():
    for split in ("train", "dev"):
        check("superglue_wsc", split, [wsc(row) for row in rows(f"superglue_wsc/{split}")])
    right = [wsc(row) for row in rows("superglue_wsc/train") if row["label"] == 1]
    check("superglue_wsc", "train", right, training=True)


PUNCTUATION = re.compile("([" + re.escape(string.punctuation) + "])")


def collapse(text: str) -> str:
    return re.sub(r"[\t\n\f\r ]+", " ", text)


def pad(text: str) -> str:
    return collapse(PUNCTUATION.sub(r" \1 ", text))


def squad(row: dict) -> list[tuple[str, str]]:
    context = pad(row["context"])
    return [
        (collapse(f"question: {pad(qa['question'])} context: {context}"), pad(qa["answers"][0])) for qa in row["qas"]
    ]


@pytest.mark.parametrize("path", ["squad/dev", "xquad/th", "xquad/ar", "xquad/en"])
def test_squad(path):
    folder, split = path.split("/")
    expected = [example for row in rows(path) for example in squad(row)]
    check(folder, split, expected)
    if folder == "xquad":
        check(f"xquad.{split}", "validation", expected)


@pytest.mark.parametrize(
    "folder, split, prefix",
    [("nq_open", "dev", "nq"), ("nq_open", "efficientqa_test", "nq"), ("web_questions", "train", "wq")],
)
def test_closed_book(folder, split, prefix):
    expected = [(f"{prefix} question: {row['question']}", row["answers"][0]) for row in rows(f"{folder}/{split}")]
    check(folder, split, expected)


def test_summaries():
    for split in ("train", "dev", "test"):
        expected = [(f"summarize: {row['document']}", row["summaries"][0]) for row in rows(f"scitldr/{split}")]
        check("scitldr", split, expected)


@pytest.mark.parametrize("path", ["arc_easy/train", "arc_easy/test", "arc_challenge/dev", "arc_challenge/test"])
def test_arc(path):
    expected = []
    for row in rows(path):
        options = " ".join(f"({letter}) {choice}" for letter, choice in zip(string.ascii_uppercase, row["choices"]))
        expected.append((f"arc question: {row['question']} {options}", row["choices"][row["answer"]]))
    check(*path.split("/"), expected)


def test_winogrande():
    expected = [
        (
            f"winogrande sentence: {row['sentence']} option1: {row['option1']} option2: {row['option2']}",
            f"option{row['answer']}",
        )
        for row in rows("winogrande/dev")
    ]
    check("winogrande", "dev", expected)


def test_xcopa():
    labels, fields = ["choice1", "choice2"], ["choice1", "choice2", "premise", "question"]
    every = {path.name.split(".")[0]: None for path in sorted((DATA / "xcopa").iterdir())}
    for language in every:
        every[language] = rows(f"xcopa/{language}")
    check("xcopa", "ta", [glue(row, "copa", labels, fields) for row in every["ta"]])
    check("xcopa.ta", "test", [glue(r, "copa", labels, fields) for r in every["ta"] if r["split"] == "test"])
    tests = [row for language in every for row in every[language] if row["split"] == "test"]
    check("xcopa", "test", [glue(row, "copa", labels, fields) for row in tests])


def test_translation():
    def documents(code: str) -> dict[str, str]:
        found = {}
        for row in rows(f"multilingual/mc4_101/{code}"):
            found.setdefault(row["id"].split("#")[0], row["text"])
        return found

    for source, target, split, ids in (("en", "de", "flores_devtest", "flores/devtest/"), ("zh", "fr", "ntrex", "ntrex/")):
        names = {"en": "English", "de": "German", "zh": "Chinese", "fr": "French"}
        sources, targets = documents(source), documents(target)
        expected = [
            (f"translate {names[source]} to {names[target]}: {line}", translated)
            for key in sources
            if key.startswith(ids) and key in targets
            for line, translated in zip(sources[key].split("\n"), targets[key].split("\n"), strict=True)
        ]
        check(f"translate_{source}_{target}", split, expected)


def clean_words(sentence: str) -> list[str]:
    words = [re.sub(r"(\.|,|\?|\!)$", "", word) for word in sentence.strip().lower().split(" ")]
    return [word for word in words if word]


def matched(hypothesis: list[str], words: list[str]) -> int:
    text = " ".join(hypothesis)
    return next((n for n in range(len(words)) if " ".join(words[: n + 1]) not in text), len(words))


def wnli_candidate(premise: list[str], hypothesis: list[str], at: int) -> tuple[int, int, str]:
    before, after, text = premise[:at], premise[at + 1 :], " ".join(hypothesis)
    num_before, num_after = matched(hypothesis[::-1], before[::-1]), matched(hypothesis, after)
    candidate = ""
    if num_before + num_after:
        left, right = before[-num_before or len(before) :], after[:num_after]
        for words in (left + ["(.+)"] + right, ["^(.+)"] + right, left + ["(.+)$"]):
            if match := re.search(" ".join(words), text):
                candidate = match.group(1)
                break
    return num_before + num_after, at, candidate


def wnli(row: dict) -> tuple[str, str]:
    premise, hypothesis = clean_words(row["sentence1"]), clean_words(row["sentence2"])
    pronouns = "he she they it her his their them him".split()
    found = [wnli_candidate(premise, hypothesis, at) for at, word in enumerate(premise) if word in pronouns]
    _, at, candidate = max(found, key=lambda one: one[0])
    words = candidate.split(" ")
    words = words[max([words.index(article) for article in ("a", "an", "the") if article in words] or [0]) :]
    pattern = " ".join(re.escape(word) + r"(?:\.|,|\?|\!)?" for word in words)
    target = re.search(pattern, row["sentence2"], re.IGNORECASE).group(0)
    target = re.sub(r"('|'s)$", "", target[:-1] if target and target[-1] in ".,!?" else target)
    marked = row["sentence1"].split(" ")
    word = marked[at]
    marked[at] = f"*{word[:-1]}* {word[-1]}" if word[-1] in ".,!?" else f"*{word}*"
    return "wsc: " + " ".join(marked), target


def test_wnli_simple():
    for split in ("train", "dev"):
        check("glue_wnli_simple", split, [wnli(row) for row in rows(f"glue_wnli/{split}")])
