"""`switchyard generate` against transformers' generate: ids and scores of greedy decoding and beam search.

transformers 5.23 cannot generate with a decoder deeper than its encoder but without its cache, which raises IndexError.
"""

import json
import select
import subprocess

import pytest
import torch
from compare import PROGRAM, switchyard

PROMPTS = [[17, 4, 80, 9, 33, 5, 1], [3, 1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 1], [5, 5, 5, 5, 5, 5, 1]]
MODELS = ["t5", "t5_v1_1", "t5_buckets", "umt5", "switch", "switch_overflow", "switch_all_sparse", "switch_router_bias", "switch_untied"]

# The program's options, and transformers'.
SEARCHES = {
    "greedy": ([], {}),
    "greedy_rules": (
        ["--repetition-penalty", 1.7, "--no-repeat-ngram", 2, "--min-tokens", 6, "--bad-word", "7", "--bad-word", "9 8"],
        dict(repetition_penalty=1.7, no_repeat_ngram_size=2, min_new_tokens=6, bad_words_ids=[[7], [9, 8]]),
    ),
    "beams": (["--beams", 4, "--results", 4], dict(num_beams=4, num_return_sequences=4)),
    "beams_early": (
        ["--beams", 3, "--early-stopping", "true", "--length-penalty", 0.6],
        dict(num_beams=3, early_stopping=True, length_penalty=0.6),
    ),
    "beams_never": (
        ["--beams", 3, "--results", 2, "--early-stopping", "never", "--length-penalty", 2.0],
        dict(num_beams=3, num_return_sequences=2, early_stopping="never", length_penalty=2.0),
    ),
    "beams_no_length": (["--beams", 5, "--length-penalty", 0.0], dict(num_beams=5, length_penalty=0.0)),
    "beams_rules": (
        ["--beams", 2, "--no-repeat-ngram", 3, "--min-tokens", 4, "--repetition-penalty", 1.3],
        dict(num_beams=2, no_repeat_ngram_size=3, min_new_tokens=4, repetition_penalty=1.3),
    ),
}


def generate(folder, prompts, *options):
    """The program's answers: one object a prompt."""
    lines = "".join(" ".join(map(str, prompt)) + "\n" for prompt in prompts)
    printed = switchyard("generate", "--model", folder, "--ids", "--json", "--threads", 1, "--dtype", "fp32", *options, stdin=lines)
    return [json.loads(line) for line in printed.splitlines()]


def shown(answer):
    """Every result of an answer as (ids, score)."""
    return [(result["ids"], result["score"]) for result in [answer, *answer.get("others", [])]]


def expected(model, prompt, max_tokens, options):
    """transformers' results for one prompt as (ids, score); greedy scores are sums of log-probabilities."""
    with torch.no_grad():
        done = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=max_tokens, output_scores=True, output_logits=True,
            return_dict_in_generate=True, **options,
        )  # fmt: skip
    results = []
    for row, ids in enumerate(done.sequences[:, 1:].tolist()):
        if 1 in ids:
            ids = ids[: ids.index(1) + 1]  # the rest is padding
        if options.get("num_beams", 1) > 1:
            score = done.sequences_scores[row].item()
        else:
            score = sum(torch.log_softmax(done.logits[step][row].double(), -1)[token].item() for step, token in enumerate(ids))
        results.append((ids, score))
    return results


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", MODELS)
def test_equals_transformers(name, search, model_folder, hf_model):
    options, hf_options = SEARCHES[search]
    answers = generate(model_folder(name), PROMPTS, "--max-tokens", 12, *options)
    assert len(answers) == len(PROMPTS)
    for prompt, answer in zip(PROMPTS, answers):
        results = expected(hf_model(name), prompt, 12, hf_options)
        for (ids, score), (hf_ids, hf_score) in zip(shown(answer), results, strict=True):
            assert ids == hf_ids, f"prompt {prompt}"
            assert score == pytest.approx(hf_score, rel=1e-4, abs=1e-4), f"prompt {prompt}"


@pytest.mark.parametrize("search", ["greedy", "beams"])
@pytest.mark.parametrize("name", ["t5_gated_silu", "switch_uneven"])
def test_a_decoder_deeper_than_the_encoder(name, search, model_folder, hf_model):
    options, hf_options = SEARCHES[search]
    answers = generate(model_folder(name), PROMPTS[:2], "--max-tokens", 8, *options)
    for prompt, answer in zip(PROMPTS, answers):
        results = expected(hf_model(name), prompt, 8, hf_options | dict(use_cache=False))
        assert [ids for ids, _ in shown(answer)] == [ids for ids, _ in results], f"prompt {prompt}"


def test_results_differ_between_prompts_and_searches(model_folder):
    """Parity over outputs that are all alike would prove little."""
    outputs = {
        tuple(answer["ids"])
        for name in ("t5", "switch")
        for options, _ in SEARCHES.values()
        for answer in generate(model_folder(name), PROMPTS, "--max-tokens", 12, *options)
    }
    assert len(outputs) >= 20


def test_batches_change_nothing(model_folder):
    for options in ([], ["--beams", 3], ["--temperature", 1.5, "--top-p", 0.9, "--seed", 4]):
        one, three, all_together = (
            generate(model_folder("switch"), PROMPTS, "--max-tokens", 16, "--batch-size", size, *options) for size in (1, 3, 8)
        )
        for alone, answer, again in zip(one, three, all_together, strict=True):
            assert alone == answer == again, "to the bit"

def test_answers_come_line_by_line(model_folder):
    """A line that comes alone is answered before the next one is there; the answers are those of all lines at once."""
    command = [PROGRAM, "generate", "--model", model_folder("switch"), "--ids", "--json", "--threads", "1", "--dtype", "fp32", "--max-tokens", "8"]
    answers = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for prompt in PROMPTS:
            process.stdin.write(" ".join(map(str, prompt)) + "\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 60)[0], "no answer while standard input stays open"
            answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait() == 0
    assert answers == generate(model_folder("switch"), PROMPTS, "--max-tokens", 8)


def test_a_prefix_is_decoder_input(model_folder, hf_model):
    prefix = [8, 44]
    for options, hf_options in (([], {}), (["--beams", 3], dict(num_beams=3))):
        answers = generate(model_folder("t5"), PROMPTS, "--max-tokens", 8, "--prefix", "8 44", *options)
        for prompt, answer in zip(PROMPTS, answers):
            with torch.no_grad():
                done = hf_model("t5").generate(
                    torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *prefix]]), do_sample=False, max_new_tokens=8, **hf_options
                )
            ids = done[0, 1:].tolist()
            assert answer["ids"] == (ids[: ids.index(1) + 1] if 1 in ids else ids)


def test_score_is_the_sum_of_log_probabilities(model_folder, hf_model):
    """As T5's own fixtures have it: score = -(target length x mean loss)."""
    targets = [[8, 2, 1], [44, 45, 46, 47, 1], [1], [3, 3, 3]]
    lines = "".join(" ".join(map(str, prompt)) + "\t" + " ".join(map(str, target)) + "\n" for prompt, target in zip(PROMPTS, targets))
    for name in ("t5", "switch"):
        printed = switchyard("generate", "--model", model_folder(name), "--ids", "--json", "--score", "--threads", 1, "--dtype", "fp32", stdin=lines)
        answers = [json.loads(line) for line in printed.splitlines()]
        for prompt, target, answer in zip(PROMPTS, targets, answers, strict=True):
            with torch.no_grad():
                loss = hf_model(name)(input_ids=torch.tensor([prompt]), labels=torch.tensor([target])).loss.item()
            assert answer["score"] == pytest.approx(-len(target) * loss, rel=1e-4)
            assert sum(answer["token_scores"]) == pytest.approx(answer["score"], rel=1e-9)


FILTERS = {
    "all": ["--temperature", 0.8, "--top-k", 20, "--top-p", 0.9],
    "top-k": ["--top-k", 7],
    "top-p": ["--top-p", 0.6],
    "typical": ["--typical-p", 0.5],
    "temperature": ["--temperature", 1.6],
    "rules": ["--top-k", 12, "--typical-p", 0.9, "--repetition-penalty", 1.5, "--min-tokens", 1, "--bad-word", "30"],
}
HF_NAMES = {"repetition-penalty": "repetition_penalty", "min-tokens": "min_new_tokens", "top-k": "top_k", "top-p": "top_p",
            "typical-p": "typical_p", "temperature": "temperature"}  # fmt: skip


@pytest.mark.parametrize("filters", FILTERS)
def test_sampling_frequencies_follow_transformers_probabilities(filters, model_folder, hf_model):
    """The first token of 3,000 samples against the filtered distribution of the first step."""
    draws, options = 3000, FILTERS[filters]
    answers = generate(model_folder("t5"), [PROMPTS[0]] * draws, "--max-tokens", 1, "--batch-size", 64, *options)
    hf_options = {HF_NAMES[name[2:]]: value for name, value in zip(options[::2], options[1::2]) if name != "--bad-word"}
    if "--bad-word" in options:
        hf_options["bad_words_ids"] = [[30]]
    with torch.no_grad():
        done = hf_model("t5").generate(
            torch.tensor([PROMPTS[0]]), do_sample=True, **({"top_k": 0} | hf_options), max_new_tokens=1,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    probabilities = torch.softmax(done.scores[0][0].double(), -1)
    counts = torch.bincount(torch.tensor([answer["ids"][0] for answer in answers]), minlength=len(probabilities))
    assert counts[probabilities == 0].sum() == 0, "a token that the filters remove was drawn"
    kept = probabilities * draws >= 5
    assert kept.sum() >= 4
    means = probabilities[kept] * draws
    chi_square = ((counts[kept] - means) ** 2 / means).sum().item()
    freedom = kept.sum().item() - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5
