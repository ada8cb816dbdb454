"""`finetune inspect tokens` beside another tokenizer."""

import json

import program


def inspect(folder, texts, *arguments, expect=0):
    """The lines of the program for these texts."""
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = program.run("inspect", "tokens", "--model", folder, *arguments, stdin=lines, expect=expect)
    if expect != 0:
        return done.stderr
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def compare(folder, texts, ids, decoded=None, arguments=()):
    """Checks that every text gives these ids, and those ids this text; shows the first differences."""
    found = inspect(folder, texts, *arguments)
    assert len(found) == len(texts)
    wrong = []
    for i, text in enumerate(texts):
        if found[i]["ids"] != list(ids[i]):
            wrong.append(f"{text!r}\n  expected {list(ids[i])}\n  found    {found[i]['ids']}")
        elif decoded is not None and found[i]["decoded"] != decoded[i]:
            wrong.append(f"{text!r}\n  expected {decoded[i]!r}\n  found    {found[i]['decoded']!r}")
    assert not wrong, f"{len(wrong)} of {len(texts)} texts differ:\n" + "\n".join(wrong[:5])


def compare_with_library(folder, tokenizer, texts, specials=False):
    """`tokenizer` is a tokenizers.Tokenizer of the same file."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=specials)
    ids = [encoding.ids for encoding in encodings]
    decoded = [tokenizer.decode(one, skip_special_tokens=False) for one in ids]
    compare(folder, texts, ids, decoded, ["--add-special-tokens"] if specials else [])
