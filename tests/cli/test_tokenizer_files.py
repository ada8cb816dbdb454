"""Tokenizer files that are damaged, missing, foreign or hostile; and lines that are not JSON strings."""

import base64
import json
import random

import pytest

import program
import tokens

BYTES = [chr(c) if 33 <= c <= 126 or 161 <= c <= 172 or c >= 174 else None for c in range(256)]
_next = iter(range(0x100, 0x200))
BYTES = [c or chr(next(_next)) for c in BYTES]
PLAIN = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
         "post_processor": None, "decoder": {"type": "ByteLevel"},
         "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTES)}, "merges": []}}


def write(folder, content, name="tokenizer.json"):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def changed(path, value):
    """PLAIN with one member changed."""
    content = json.loads(json.dumps(PLAIN))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def refused(folder, *words):
    message = tokens.inspect(folder, ["a b"], expect=4)
    for word in (str(folder), *words):
        assert word in message, message


def test_plain(tmp_path):
    line = tokens.inspect(write(tmp_path, PLAIN), ["hé\u2028"])[0]
    assert line == {"ids": list("hé\u2028".encode()), "decoded": "hé\u2028"}


def test_output_is_one_line_for_every_reader(tmp_path):
    text = "a\u0085b\u2028c\u2029d\x0be"
    done = program.run("inspect", "tokens", "--model", write(tmp_path, PLAIN), stdin=json.dumps(text) + "\n")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["decoded"] == text
    assert " " not in done.stdout


@pytest.mark.parametrize("line", ['"\\ud800"', '"\\udc00 x"', '"abc', "abc", "[1]", '{"a": 1}', "12"])
def test_lines_that_are_no_strings(line, tmp_path):
    done = program.run("inspect", "tokens", "--model", write(tmp_path, PLAIN), stdin='"fine"\n' + line + "\n", expect=3)
    assert "standard input:2" in done.stderr


def test_invalid_utf8(tmp_path):
    import subprocess
    write(tmp_path, PLAIN)
    done = subprocess.run([program.BIN, "inspect", "tokens", "--model", tmp_path], input=b'"\xff\xfe"\n', capture_output=True)
    assert done.returncode == 3 and b"standard input:1" in done.stderr


def test_missing(tmp_path):
    refused(tmp_path, "tokenizer.json")
    refused(tmp_path / "nowhere", "no such folder")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_git_lfs_pointer(name, tmp_path):
    write(tmp_path, PLAIN)
    write(tmp_path, "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", name)
    if name == "tokenizer.model":
        (tmp_path / "tokenizer.json").unlink()
    refused(tmp_path, name, "LFS")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100, b"\n\n", bytes(range(256)) * 10, b"PK\x03\x04zip", b"\x0a\xff\xff\xff\xff\x0f"])
def test_model_file_of_no_kind(content, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(content)
    refused(tmp_path, "tokenizer.model")


HOSTILE = {
    "not json": '{"model": ', "list": "[]", "no model": "{}", "model is text": '{"model": "x"}', "nested": "[" * 100000,
    "deep normalizer": '{"normalizer": ' + '{"type":"Sequence","normalizers":[' * 5000,
    "huge id": changed(["model", "vocab"], {"a": 2**31}), "negative id": changed(["model", "vocab"], {"a": -1}),
    "fraction id": changed(["model", "vocab"], {"a": 0.5}), "text id": changed(["model", "vocab"], {"a": "b"}),
    "scores in BPE": changed(["model", "vocab"], [["a", -1.0]]), "vocab is list of lists": changed(["model", "vocab"], [[["a"]]]),
    "merge of three": changed(["model", "merges"], ["a b c"]), "merge of one": changed(["model", "merges"], [["a"]]),
    "merge of unknown": changed(["model", "merges"], ["xx yy"]), "merge is number": changed(["model", "merges"], [1]),
    "unknown model": changed(["model", "type"], "Magic"), "unknown normalizer": changed(["normalizer"], {"type": "Magic"}),
    "unknown pre": changed(["pre_tokenizer"], {"type": "Magic"}), "unknown decoder": changed(["decoder"], {"type": "Magic"}),
    "unknown post": changed(["post_processor"], {"type": "Magic"}), "bad regex": changed(["normalizer"], {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    "no pattern": changed(["normalizer"], {"type": "Replace"}), "sequence without list": changed(["pre_tokenizer"], {"type": "Sequence"}),
    "growth": changed(["normalizer"], {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60}),
    "charsmap": changed(["normalizer"], {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\x00\x04\x00\x00" + b"\xff" * 1024).decode()}),
    "charsmap text": changed(["normalizer"], {"type": "Precompiled", "precompiled_charsmap": "???"}),
    "post id": changed(["post_processor"], {"type": "BertProcessing", "cls": ["x", 99999], "sep": ["y", -5]}),
    "template": changed(["post_processor"], {"type": "TemplateProcessing", "single": [], "special_tokens": {}}),
    "template token": changed(["post_processor"], {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}], "special_tokens": {}}),
    "added tokens": changed(["added_tokens"], [{"id": 1}]), "long added token": changed(["added_tokens"], [{"id": 300, "content": "x" * 5000}]),
    "unigram id": changed(["model"], {"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]]}),
    "unigram without unknown": changed(["model"], {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}),
    "words without unknown": changed(["model"], {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json(name, tmp_path):
    content = HOSTILE[name]
    write(tmp_path, content)
    message = tokens.inspect(tmp_path, ["a b"], expect=4)
    assert message.startswith("error: ") and (name == "growth" or str(tmp_path) in message), message


def test_damaged_anywhere(tmp_path):
    """Bytes changed at random never crash the program: it works or says what is wrong."""
    rng = random.Random(5)
    whole = json.dumps(changed(["normalizer"], {"type": "NFC"})).encode()
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "tokenizer.json").write_bytes(damaged[:rng.choice([len(damaged), rng.randrange(len(damaged))])])
        done = program.run("inspect", "tokens", "--model", tmp_path, stdin='"a b"\n', expect=None)
        assert done.returncode in (0, 4), done.stderr


def ranks(count, size):
    """A rank file: all bytes, then made tokens."""
    rng = random.Random(1)
    names = [bytes([byte]) for byte in range(256)] + [b"ab", b"abc", b" the", " 你".encode()]
    seen = set(names)
    while len(names) < count:
        token = rng.choice(names) + rng.choice(names[:size])
        if token not in seen and len(token) < 12:
            seen.add(token)
            names.append(token)
    return names


def write_ranks(path, names):
    path.write_bytes(b"".join(base64.b64encode(name) + b" %d\n" % rank for rank, name in enumerate(names)))


def test_rank_file_of_qwen(tmp_path):
    names = ranks(1000, 300)
    write_ranks(tmp_path / "qwen.tiktoken", names)
    refused(tmp_path, "qwen.tiktoken", "model_type")
    write(tmp_path, {"model_type": "qwen2"}, "config.json")
    lines = tokens.inspect(tmp_path, ["abc", "<|im_start|>a<|im_end|>"])
    assert lines[0] == {"ids": [257], "decoded": "abc"}
    assert lines[1]["ids"] == [1001, ord("a"), 1002]


def test_rank_file_with_other_contents(tmp_path):
    write(tmp_path, {"model_type": "llama"}, "config.json")
    write_ranks(tmp_path / "tokenizer.model", ranks(600, 300))
    refused(tmp_path, "tokenizer.model", "128000")
    write(tmp_path, {"model_type": "qwen2"}, "config.json")
    (tmp_path / "tokenizer.model").write_text("YQ== 0\nYg== x\n")
    refused(tmp_path, "tokenizer.model:2")
    (tmp_path / "tokenizer.model").write_text("YQ== 0\n")
    refused(tmp_path, "0x00")


def test_rank_file_beside_tiktoken(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    names = ranks(3000, 600)
    write_ranks(tmp_path / "qwen.tiktoken", names)
    write(tmp_path, {"model_type": "qwen2"}, "config.json")
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    library = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks={name: rank for rank, name in enumerate(names)}, special_tokens={})
    import texts
    rows = texts.SAMPLES[:20] + ["the abc the 你好 you the\n the"] + [bytes(random.Random(i).choices(b"abct he", k=40)).decode() for i in range(200)]
    tokens.compare(tmp_path, rows, [library.encode(row, disallowed_special=()) for row in rows])
