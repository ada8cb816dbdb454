"""Trains the sentencepiece tokenizer of data/tiny-base.

The trainer sees words, numbers and runs of brackets as separate lines and never a space next to a
letter. So no piece can cross such a border, and a name gets the same ids in prose, in YAML and
between quotes: repeating it is a plain copy of ids.
"""

import argparse
import collections
import io
import json
import pathlib
import re

import sentencepiece

import corpus

# letters | digits | Chinese | runs of JSON punctuation; every other character stays alone
SEGMENT = re.compile(r"[A-Za-z]+|[0-9]+|[\u4e00-\u9fff]+|[{}\[\]\",:]+")
SAMPLE_ROWS = 40_000
DOMAIN_WEIGHT = 3000  # a domain word counts as this many occurrences, so that it becomes few pieces


def segment_counts(rows) -> collections.Counter:
    counts = collections.Counter()
    for text in rows:
        for segment in SEGMENT.findall(text):
            if segment[0].isdigit():  # numbers are cut into pairs: 8431 is 84 31
                counts.update(segment[i:i + 2] for i in range(0, len(segment), 2))
            else:
                counts[segment] += 1
    for word in corpus.WORDS:
        for segment in SEGMENT.findall(word):
            counts[segment] += DOMAIN_WEIGHT
    for number in range(100):
        counts[f"{number:02d}"] += DOMAIN_WEIGHT
    return counts


def train(rows, vocab_size: int, folder: pathlib.Path) -> None:
    counts = segment_counts(rows)
    lines = [" \t1000000", "  \t900000"] + [f"{text}\t{count}" for text, count in sorted(counts.items())]
    table = folder / "segments.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = io.BytesIO()
    every_ascii = "".join(chr(code) for code in range(33, 127))
    sentencepiece.SentencePieceTrainer.train(
        input=str(table), input_format="tsv", model_writer=model, model_type="bpe", vocab_size=vocab_size,
        character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=False,
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
    parser.add_argument("--vocab-size", type=int, default=2048)
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
