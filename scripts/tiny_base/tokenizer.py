"""Trains the sentencepiece tokenizer of data/tiny-base.

The trainer sees syllables, words, numbers and runs of brackets as separate lines. A piece never reaches
past such a border, except that words of the domain and some punctuation may take the space behind
them. So a name gets the same ids in prose, in YAML and between quotes: repeating it is a plain copy of ids.
"""

import argparse
import collections
import io
import json
import pathlib
import re

import sentencepiece

import corpus
from values import COMMON, DOMAINS, SYLLABLES

SEGMENT = re.compile(r"[A-Za-z]+|[0-9]+|[{}\[\]\",:]+")  # every other character stays alone
SAMPLE_ROWS = 40_000
# Merges happen in the order of these counts. Syllables and pairs of digits come first, so that they are
# cut the same way in every name and number; the space behind a word comes last, as a whole word only.
PART_WEIGHT = 10_000_000
DOMAIN_WEIGHT = 3000
SPACED_WEIGHT = 10
SPACED = [", ", ": ", ". ", "; ", "- ", "--", "### ", "## ", "# "]


def segment_counts(rows) -> collections.Counter:
    """Lines for the trainer. The corpus gives the punctuation; its random words are made of syllables."""
    counts = collections.Counter()
    for text in rows:
        for segment in SEGMENT.findall(text):
            if not segment[0].isalnum():
                counts[segment] += 1
    ends_of_values = set(SYLLABLES) | set(COMMON) | set(DOMAINS)
    for word in sorted(corpus.field_words() | set(COMMON) | set(DOMAINS)):
        counts[word] += DOMAIN_WEIGHT
        if len(word) > 1 and not word[-1].isdigit() and word not in ends_of_values:
            counts[word + " "] += SPACED_WEIGHT
    counts.update(word for word in corpus.term_words() if word.isascii())
    counts.update(corpus.WORDS)
    for text in SPACED:
        counts[text] += DOMAIN_WEIGHT
    for syllable in SYLLABLES:
        counts[syllable] += PART_WEIGHT
    for number in range(100):
        counts[f"{number:02d}"] += PART_WEIGHT
    for length in range(2, 17, 2):
        counts[" " * length] += PART_WEIGHT
    return counts


def train(rows, vocab_size: int, folder: pathlib.Path) -> None:
    counts = segment_counts(rows)
    lines = [f"{text}\t{count}" for text, count in sorted(counts.items())]
    table = folder / "segments.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = io.BytesIO()
    every_ascii = "".join(chr(code) for code in range(33, 127))
    sentencepiece.SentencePieceTrainer.train(
        input=str(table), input_format="tsv", model_writer=model, model_type="bpe", vocab_size=vocab_size,
        character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=False, treat_whitespace_as_suffix=True,
        split_by_unicode_script=True, split_by_number=True, max_sentence_length=4096,
        required_chars=every_ascii + "，。：；、“”？！（）", unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        minloglevel=2, num_threads=1)
    table.unlink()
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def write_settings(folder: pathlib.Path, max_length: int) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {
        "add_bos_token": True, "add_eos_token": False, "add_prefix_space": False, "legacy": False,
        "clean_up_tokenization_spaces": False, "model_max_length": max_length, "tokenizer_class": "LlamaTokenizer",
        **special,
    }
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="the JSONL file that corpus.py wrote")
    parser.add_argument("--output", required=True, help="the model folder")
    parser.add_argument("--vocab-size", type=int, default=3072)
    parser.add_argument("--max-length", type=int, default=512)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    with open(arguments.corpus, encoding="utf-8") as file:
        rows = [json.loads(line)["text"] for line, _ in zip(file, range(SAMPLE_ROWS))]
    train(rows, arguments.vocab_size, folder)
    write_settings(folder, arguments.max_length)


if __name__ == "__main__":
    main()
