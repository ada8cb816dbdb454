"""Real vocabularies beside `tokenizers` and `sentencepiece`, recorded and live.

FINETUNE_ALL_TEXTS=1 takes every row of the shared instruction data instead of a sample.
"""

import json
import os
import shutil

import pytest

import program
import texts
import tokens

tokenizers = pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

DATA = program.SHARED_DIR / "data"
ALL = os.environ.get("FINETUNE_ALL_TEXTS") == "1"
GOLDEN = sorted((DATA / "golden/tokens").glob("tok-*.jsonl"))
JSON_FOLDERS = sorted(path.parent for path in DATA.glob("tokenizers/*/tokenizer.json"))
MODEL_FOLDERS = sorted(path.parent for path in DATA.glob("tokenizers/*/tokenizer.model"))
VECTORS = [("falcon", "falcon"), ("llama-spm", "llama2"), ("qwen2", "qwen2.5"), ("starcoder", "gguf-starcoder")]

needs_data = pytest.mark.skipif(not GOLDEN, reason=f"no tokenizers in {DATA}")


def name_of(path):
    return path.stem if path.suffix else path.name


def alone(folder, target, *names):
    for name in names:
        shutil.copy(folder / name, target)
    return target


def read_vectors(name):
    source = (DATA / f"vectors/ggml-vocab-{name}.gguf.inp").read_bytes().decode()
    inputs = source.split("\n__ggml_vocab_test__\n")
    outputs = (DATA / f"vectors/ggml-vocab-{name}.gguf.out").read_text().split("\n")[:-1]
    return inputs[:len(outputs)], [[int(number) for number in line.split()] for line in outputs]


@needs_data
@pytest.mark.parametrize("path", GOLDEN, ids=name_of)
def test_recorded(path, tmp_path):
    folder, file = path.stem.removeprefix("tok-").split("__")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    folder = DATA / "tokenizers" / folder
    if file == "tokenizer.model":
        # sentencepiece itself does not see control pieces written in a text; this program does.
        rows = [row for row in rows if "<s>" not in row["text"]]
        folder = alone(folder, tmp_path, file)
    assert len(rows) > 100
    tokens.compare(folder, [row["text"] for row in rows], [row["ids"] for row in rows], [row["decoded"] for row in rows])


@needs_data
@pytest.mark.parametrize("vector,folder", VECTORS)
def test_vectors(vector, folder):
    inputs, ids = read_vectors(vector)
    tokens.compare(DATA / "tokenizers" / folder, inputs, ids)


@needs_data
def test_gpt2_vectors_from_vocab_and_merges(tmp_path):
    """Phi-2's vocabulary is GPT-2's with more added tokens."""
    model = json.loads((DATA / "tokenizers/phi2/tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", newline="\n")
    inputs, ids = read_vectors("gpt-2")
    tokens.compare(tmp_path, inputs, ids)
    (tmp_path / "merges.txt").write_bytes(("#version: 0.2\r\n" + "\r\n".join(merges) + "\r\n").encode())
    tokens.compare(tmp_path, inputs, ids)


@needs_data
def test_qwen_from_vocab_and_merges(tmp_path):
    source = DATA / "tokenizers/qwen2.5"
    folder = alone(source, tmp_path, "vocab.json", "merges.txt", "tokenizer_config.json")
    library = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    tokens.compare_with_library(folder, library, texts.SAMPLES + texts.random_texts(300, 1))


@needs_data
@pytest.mark.parametrize("folder", JSON_FOLDERS, ids=name_of)
def test_live_json(folder, tmp_path):
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    rows = texts.SAMPLES + texts.random_texts(1500, 2) + texts.instruction_texts(None if ALL else 300)
    tokens.compare_with_library(alone(folder, tmp_path, "tokenizer.json"), library, rows)


@needs_data
@pytest.mark.parametrize("folder", MODEL_FOLDERS, ids=name_of)
def test_live_sentencepiece(folder, tmp_path):
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    control = [library.id_to_piece(i) for i in range(library.get_piece_size()) if library.is_control(i)]
    rows = texts.SAMPLES + texts.random_texts(1500, 3) + texts.instruction_texts(None if ALL else 300)
    rows = [row for row in rows if "\0" not in row and not any(piece in row for piece in control)]
    ids = [library.encode(row) for row in rows]
    tokens.compare(alone(folder, tmp_path, "tokenizer.model"), rows, ids, [library.decode(one) for one in ids])
