"""Answers of many rows at once, and draws, against transformers' generate and its logits processors."""

import json

import family
import peer
import pytest
import sentencepiece
import toy
import torch
from program import run, write_rows
from transformers import (LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

TOKENS = 40


@pytest.mark.parametrize("name", family.FAMILIES)
def test_greedy_answers_of_many_rows(tmp_path, name):
    """More rows than slots, prompts of 3 to 60 tokens: prompts join while others are in the middle of their answer."""
    model = family.make(tmp_path / "model", name)
    prompts = [row["prompt"] for row in [*toy.rows(20, seed=1, low=2, high=6), *toy.rows(20, seed=2, low=8, high=20)]]
    file = write_rows(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    done = run("generate", "--model", model, "--input", file, "--template", "none", "--max-new-tokens", TOKENS, "--json", "dtype=float32")
    ours = [json.loads(line)["completion"].strip() for line in done.stdout.splitlines()]
    theirs, processor = peer.load(model), sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = peer.encode(model, [{"prompt": prompt, "completion": ""}])[0][0][:-1]
        wanted = theirs.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)[0, len(ids):].tolist()
        # Special tokens are skipped before bytes become characters.
        wanted = [token for token in (wanted[:wanted.index(2)] if 2 in wanted else wanted) if token not in (0, 1)]
        assert answer == processor.decode(wanted).strip()


DRAWS = 4000
SAMPLING = {
    "temperature": ({"--temperature": 0.7}, lambda: [TemperatureLogitsWarper(0.7)]),
    "top-k": ({"--temperature": 1.0, "--top-k": 5}, lambda: [TopKLogitsWarper(5)]),
    "top-p": ({"--temperature": 1.3, "--top-p": 0.8}, lambda: [TemperatureLogitsWarper(1.3), TopPLogitsWarper(0.8)]),
    "penalty": ({"--temperature": 1.0, "--repetition-penalty": 1.7}, lambda: [RepetitionPenaltyLogitsProcessor(1.7)]),
    "all": ({"--temperature": 1.5, "--top-k": 40, "--top-p": 0.9, "--min-p": 0.02, "--repetition-penalty": 1.3},
            lambda: [RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(1.5), TopKLogitsWarper(40), TopPLogitsWarper(0.9),
                     MinPLogitsWarper(0.02)]),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_draws(tmp_path, model, name):
    """The first token of many rows: only tokens that transformers would draw, and each as often as it would be."""
    options, processors = SAMPLING[name]
    prompt = toy.rows(1, seed=9, low=10, high=12)[0]["prompt"]
    ids = peer.encode(model, [{"prompt": prompt, "completion": ""}])[0][0][:-1]
    with torch.no_grad():
        logits = peer.load(model)(torch.tensor([ids])).logits[:, -1].float()
    expected = torch.softmax(LogitsProcessorList(processors())(torch.tensor([ids]), logits), -1)[0]
    file = write_rows(tmp_path / "prompts.jsonl", [{"prompt": prompt}] * DRAWS)
    done = run("generate", "--model", model, "--input", file, "--template", "none", "--max-new-tokens", 1, "--json", "dtype=float32",
               *(word for pair in options.items() for word in pair))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    # What is seen is text, so tokens of one text count together; the end of the answer is the empty one.
    likely, drawn = {}, {}
    for token, probability in enumerate(expected.tolist()):
        text = "" if token in (0, 1, 2) else processor.decode([token])
        likely[text] = likely.get(text, 0) + probability
    for line in done.stdout.splitlines():
        text = json.loads(line)["completion"]
        drawn[text] = drawn.get(text, 0) + 1
    assert sum(drawn.values()) == DRAWS
    assert all(likely.get(text, 0) > 0 for text in drawn), [t for t in drawn if not likely.get(t)]
    # Chi-square over texts that are expected five times, the others as one.
    bins = [(drawn.get(text, 0), DRAWS * p) for text, p in likely.items() if DRAWS * p >= 5]
    rest = DRAWS - sum(b[1] for b in bins)
    if rest > 1:
        bins.append((DRAWS - sum(b[0] for b in bins), rest))
    assert len(bins) > 2
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in bins)
    degrees = len(bins) - 1
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5  # five standard deviations; the draws are the same in every run
