"""Every metric against the program that defines it, on random cases with a fixed seed, edge cases among them."""

import collections
import json
import math
import os
import random
import re
import string
import subprocess
import warnings

import numpy as np
import pytest
import sacrebleu
import scipy.stats
import sklearn.metrics
from nltk.stem import porter
from rouge_score import rouge_scorer

CASES = 200
WORDS = (
    "the a an cat cats dogs running ran quickly national generically Paris U.S. 3.14 1,000 8.0 it's don't twenty-one "
    "- . , ! ? \" ( ) & &amp; <skipped> /path été Ünïcode ΟΔΟΣ İstanbul 你好 世界 😀 €5 ١٢ ½ ﬁ K’s ‘quoted’ _under_ of in on "
    "moose hippo theology relational hopping filing controlling ponies happiness adjustable"
).split()


def values(jobs: list[dict]) -> list:
    lines = "\n".join(json.dumps(job, ensure_ascii=False) for job in jobs)
    run = subprocess.run([os.environ["METRIC_VALUES"]], input=lines, capture_output=True, text=True, check=True)
    # Split at line ends alone: str.splitlines() also splits at U+2028 and others, which JSON leaves as they are.
    return [json.loads(line) for line in run.stdout.rstrip("\n").split("\n")]


def text(rng: random.Random, most: int = 8) -> str:
    kind = rng.random()
    if kind < 0.06:
        return ""
    if kind < 0.1:
        return rng.choice([" ", "\n", "\u00a0", "the", "...", "\u3000\t"])
    separator = rng.choice([" ", " ", " ", "  ", " \u00a0", "\n"])
    return separator.join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def near(text_: str, rng: random.Random) -> str:
    """The text with some words changed, so that scores are neither 0 nor 100."""
    words = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in text_.split(" ")]
    return " ".join(words[: rng.randint(0, len(words))] if rng.random() < 0.3 else words)


def check(jobs: list[dict], expected: list, tolerance: float = 1e-6) -> None:
    found = values(jobs)
    assert len(found) == len(expected)
    for job, value, wanted in zip(jobs, found, expected):
        if isinstance(wanted, float) and math.isnan(wanted):
            assert value is None, job
        else:
            assert value == pytest.approx(wanted, abs=tolerance), job


def random_classes(rng: random.Random, classes: int, invalid: bool) -> tuple[list[int], list[int]]:
    size = rng.choice([1, 2, 3, 10, 50])
    targets = [rng.randrange(classes) for _ in range(size)]
    outcomes = list(range(-1 if invalid else 0, classes))
    predictions = [rng.choice([target, rng.choice(outcomes)]) for target in targets]
    if rng.random() < 0.15:
        predictions = [predictions[0]] * size
    return targets, predictions


@pytest.mark.parametrize("metric", ["accuracy", "binary_f1", "macro_f1", "matthews"])
def test_classes(metric):
    rng, jobs, expected = random.Random(metric), [], []
    for _ in range(CASES):
        classes = 2 if metric == "binary_f1" else rng.randint(2, 5)
        targets, predictions = random_classes(rng, classes, invalid=True)
        jobs.append({"metric": metric, "targets": targets, "predictions": predictions, "classes": classes})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if metric == "accuracy":
                value = sklearn.metrics.accuracy_score(targets, predictions)
            elif metric == "binary_f1":
                valid = [p if p in (0, 1) else 1 - t for t, p in zip(targets, predictions)]
                value = sklearn.metrics.f1_score(targets, valid)
            elif metric == "macro_f1":
                value = sklearn.metrics.fbeta_score(targets, predictions, beta=1, labels=range(classes), average="macro")
            else:
                value = sklearn.metrics.matthews_corrcoef(targets, predictions)
        expected.append(100 * value)
    check(jobs, expected)


def test_whole_questions():
    rng, jobs, expected = random.Random(1), [], []
    for _ in range(CASES):
        targets, predictions = random_classes(rng, 2, invalid=True)
        groups = [str(rng.randrange(5)) for _ in targets]
        jobs.append({"metric": "exact_match", "targets": targets, "predictions": predictions, "groups": groups})
        by_group = collections.defaultdict(list)
        for group, target, prediction in zip(groups, targets, predictions):
            by_group[group].append(target == prediction)
        expected.append(100 * np.mean([all(group) for group in by_group.values()]))
    check(jobs, expected)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations(metric):
    rng, jobs, expected = random.Random(metric), [], []
    for _ in range(CASES):
        size = rng.choice([2, 3, 10, 100])
        targets = [rng.randrange(26) / 5 for _ in range(size)]
        predictions = [rng.choice([target, rng.randrange(26) / 5, -1.0, 1e8]) for target in targets]
        if rng.random() < 0.1:
            predictions = [-1.0] * size  # no output could be read as a number
        jobs.append({"metric": metric, "targets": targets, "predictions": predictions})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = scipy.stats.pearsonr if metric == "pearson" else scipy.stats.spearmanr
            expected.append(float(100 * peer(targets, predictions)[0]))
    check(jobs, expected)


def test_ranks():
    rng, jobs, expected = random.Random(2), [], []
    for _ in range(CASES):
        classes, size = rng.choice([2, 2, 3, 4]), rng.randint(2, 30)
        scores = [[rng.choice([-1.0, -2.0, -0.5, rng.uniform(-9, 0)]) for _ in range(classes)] for _ in range(size)]
        truth = [rng.randrange(classes) for _ in range(size)]
        if classes == 2:
            truth[:2] = [0, 1]
        weights = [rng.choice([1.0, 0.25, 2.0]) for _ in range(size)]
        examples = [
            {"scores": score, "correct": [n == right for n in range(classes)], "weight": weight}
            for score, right, weight in zip(scores, truth, weights)
        ]
        jobs.append({"metric": "ranks", "examples": examples})
        table = np.array(scores, np.float32)
        predictions = table.argmax(-1)
        wanted = dict.fromkeys(["accuracy", "f1", "macro_f1", "auc_roc", "auc_pr"])
        wanted["accuracy"] = 100 * sklearn.metrics.accuracy_score(truth, predictions, sample_weight=weights)
        if classes == 2:
            odds = np.exp(table - table.max(-1, keepdims=True))
            probability = (odds / odds.sum(-1, keepdims=True))[:, 1]
            wanted["f1"] = 100 * sklearn.metrics.f1_score(truth, predictions, sample_weight=weights, zero_division=0)
            wanted["auc_roc"] = 100 * sklearn.metrics.roc_auc_score(truth, probability, sample_weight=weights)
            wanted["auc_pr"] = 100 * sklearn.metrics.average_precision_score(truth, probability, sample_weight=weights)
        else:
            wanted["macro_f1"] = 100 * sklearn.metrics.f1_score(
                truth, predictions, labels=range(classes), average="macro", sample_weight=weights, zero_division=0
            )
        expected.append(wanted)
    check(jobs, expected, tolerance=1e-4)


# The evaluation scripts of SQuAD v1.1 and TriviaQA, restated.
def normalize_squad(answer: str) -> str:
    kept = "".join(char for char in answer.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def normalize_trivia_qa(answer: str) -> str:
    marks = set(string.punctuation + "‘’´`_")
    spaced = "".join(" " if char in marks else char for char in answer.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", spaced).split())


def token_f1(target: str, prediction: str) -> float:
    same = sum((collections.Counter(prediction.split()) & collections.Counter(target.split())).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction.split()), same / len(target.split())
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("metric", ["squad", "trivia_qa"])
def test_answers(metric):
    normalize = normalize_squad if metric == "squad" else normalize_trivia_qa
    rng, jobs, expected = random.Random(metric), [], []
    for _ in range(CASES):
        targets = [[text(rng) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 6))]
        predictions = [near(rng.choice(answers), rng) for answers in targets]
        jobs.append({"metric": metric, "targets": targets, "predictions": predictions})
        pairs = [([normalize(a) for a in answers], normalize(p)) for answers, p in zip(targets, predictions)]
        expected.append(
            [
                100 * np.mean([max(answer == p for answer in answers) for answers, p in pairs]),
                100 * np.mean([max(token_f1(answer, p) for answer in answers) for answers, p in pairs]),
            ]
        )
    check(jobs, expected)


@pytest.mark.parametrize("stem", [True, False])
def test_rouge(stem):
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=stem)
    rng, jobs, expected = random.Random(stem), [], []
    for _ in range(CASES):
        targets = [[text(rng, most=30) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 3))]
        predictions = [near(rng.choice(summaries), rng) for summaries in targets]
        jobs.append({"metric": "rouge", "targets": targets, "predictions": predictions, "stem": stem})
        scores = [
            scorer.score_multi([t.replace(" . ", " .\n") for t in summaries], p.replace(" . ", " .\n"))
            for summaries, p in zip(targets, predictions)
        ]
        expected.append([100 * np.mean([score[kind].fmeasure for score in scores]) for kind in kinds])
    check(jobs, expected)


@pytest.mark.parametrize("intl", [False, True])
def test_bleu(intl):
    tokenizer = "intl" if intl else "13a"
    rng, jobs, expected = random.Random(intl), [], []
    for _ in range(CASES):
        num_references = rng.randint(1, 3)
        targets = [[text(rng, most=30) for _ in range(num_references)] for _ in range(rng.randint(1, 5))]
        predictions = [near(rng.choice(references), rng) for references in targets]
        jobs.append({"metric": "bleu", "targets": targets, "predictions": predictions, "intl": intl})
        streams = [list(stream) for stream in zip(*targets)]
        expected.append(sacrebleu.corpus_bleu(predictions, streams, tokenize=tokenizer, force=True).score)
    check(jobs, expected)


def random_characters(rng: random.Random) -> str:
    """Letters, marks and punctuation of many scripts, all of them older than Unicode 14."""
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x2B0, 0x530), (0x5D0, 0x7B0), (0x900, 0xB00), (0x1E00, 0x2070)]
    ranges += [(0x2100, 0x2300), (0x2C00, 0x2D00), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xA640, 0xA6A0)]
    ranges += [(0xFF00, 0xFF60), (0x10400, 0x10450), (0x1F600, 0x1F640)]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(0, 30)))


def test_characters():
    tokenizers = {
        intl: sacrebleu.metrics.bleu._get_tokenizer("intl" if intl else "13a")() for intl in (False, True)
    }
    rng, jobs, expected = random.Random(3), [], []
    for _ in range(10 * CASES):
        line = random_characters(rng)
        # Capital sigmas at all kinds of places.
        line = "".join(rng.choice([char, char, char, "Σ"]) for char in line)
        jobs += [{"metric": name, "text": line} for name in ("lower", "normalize_squad", "normalize_trivia_qa")]
        expected += [line.lower(), normalize_squad(line), normalize_trivia_qa(line)]
        for intl, tokenizer in tokenizers.items():
            jobs.append({"metric": "bleu_tokens", "text": line, "intl": intl})
            expected.append(tokenizer(line.rstrip()))
    found = values(jobs)
    for job, value, wanted in zip(jobs, found, expected):
        assert value == wanted, job


def test_stems():
    stemmer, rng = porter.PorterStemmer(), random.Random(4)
    suffixes = (
        "sses ies ss s ied eed ed ing at bl iz y ational tional enci anci izer bli alli entli eli ousli ization ation "
        "ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance "
        "ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll ly"
    ).split()
    words = ["sky", "skies", "dying", "news", "innings", "howe", "proceed"]
    for _ in range(100 * CASES):
        stem = "".join(rng.choice("aeiouybcdlstwxz") for _ in range(rng.randint(0, 6)))
        words.append(stem + "".join(rng.choice(suffixes) for _ in range(rng.randint(0, 2))))
    found = values([{"metric": "stem", "text": word} for word in words])
    for word, value in zip(words, found):
        assert value == stemmer.stem(word), word
