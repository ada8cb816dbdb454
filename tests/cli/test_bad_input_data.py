"""Data that are wrong: exit code 3, file:line, what was found, what was expected."""

import gzip
import json
import os

from bad_input import Case, table_of

GOOD = '{"prompt": "pod", "completion": " node"}\n'


def rows(name, content, *says, code=3, **keys):
    """A data file of this text or these bytes."""
    return Case(name, code, says, lambda place: place.train(datasets=[place.file("rows.jsonl", content)], **keys))


def row(name, text, *says, **keys):
    """One row, the third line of a sound file."""
    return rows(name, GOOD + "\n" + text + "\n" + GOOD, r"rows\.jsonl:3", *says, **keys)


def made(name, make, *says):
    """The data file is what `make(path)` makes."""
    def arrange(place):
        make(place.folder / "made.jsonl")
        return place.train(datasets=[place.folder / "made.jsonl"])
    return Case(name, 3, says, arrange)


def two_files(name, first, second, *says, code=3, **keys):
    return Case(name, code, says, lambda place: place.train(
        datasets=[place.file("one.jsonl", first), place.file("two.jsonl", second)], **keys))


def long_line(place):
    """100 MB in one line, made of what a reader that trusts it would keep."""
    path = place.folder / "long.jsonl"
    with path.open("w") as file:
        file.write(GOOD + '{"prompt": "')
        for _ in range(100):
            file.write("pod " * 250_000)
        file.write('", "completion": " x"}\n')
    return place.train(datasets=[path])


CASES = [
    # JSON.
    row("not JSON", "{nonsense"),
    row("half a row", '{"prompt": "a", "comp'),
    row("two objects in a line", GOOD.strip() + GOOD.strip()),
    row("a comma after the last key", '{"prompt": "a", "completion": "b",}'),
    row("single quotes", "{'prompt': 'a', 'completion': 'b'}"),
    row("not a number", '{"prompt": "a", "completion": NaN}'),
    row("a raw tab in a text", '{"prompt": "a\tb", "completion": "b"}'),
    row("a key twice", '{"prompt": "a", "prompt": "c", "completion": "b"}', "prompt"),
    row("nested for an overflow of the stack", "[" * 200_000),
    row("nested and closed", '{"prompt": ' + '{"a": ' * 100_000 + "1" + "}" * 100_000 + ', "completion": "b"}'),
    row("a list", "[1, 2]"),
    row("a text", '"pod"'),
    row("null", "null"),
    rows("an array cut short", "[" + GOOD.strip() + ",\n" + GOOD, r"rows\.jsonl"),
    rows("an array and more", "[" + GOOD.strip() + "]\n" + GOOD, r"rows\.jsonl:2", "more after the end"),
    rows("an array of nothing", "[]", r"rows\.jsonl:1", "no rows"),
    rows("twenty bad rows", '{"prompt": "a"}\n' * 20, r"rows\.jsonl:1:", "and 10 more"),
    # Bytes.
    rows("invalid UTF-8", GOOD.encode() + b'{"prompt": "\xff", "completion": "b"}\n', r"rows\.jsonl:2", "0xff"),
    rows("UTF-16", GOOD.encode("utf-16"), r"rows\.jsonl:1", "UTF-8"),
    rows("a NUL byte", GOOD.encode() + b'{"prompt": "a\0", "completion": "b"}\n', r"rows\.jsonl:2", "NUL"),
    row("a lone surrogate", r'{"prompt": "a \ud800", "completion": "b"}'),
    row("a reversed pair of surrogates", r'{"prompt": "a \udc00\ud800", "completion": "b"}'),
    rows("a zip archive", b"PK\x03\x04" + bytes(200), r"rows\.jsonl:1"),
    Case("a line of 100 MB", 3, (r"long\.jsonl:2", "max_row_bytes"), long_line),
    # Files.
    rows("empty", "", r"rows\.jsonl", "empty"),
    rows("blank lines alone", "\n \n\n", r"rows\.jsonl", "no rows"),
    rows("cut gzip", gzip.compress((GOOD * 5000).encode())[:-20], r"rows\.jsonl", "gzip"),
    rows("gzip with a flipped byte", gzip.compress(GOOD.encode() * 500)[:30] + b"\xff" * 40,
         r"rows\.jsonl"),
    rows("gzip of nothing", gzip.compress(b""), r"rows\.jsonl"),
    rows("gzip of 200 MB of zeros", gzip.compress(bytes(200 << 20), 1), r"rows\.jsonl:1", "max_row_bytes"),
    made("missing", lambda path: None, r"made\.jsonl", "cannot be opened"),
    made("a folder", os.mkdir, r"made\.jsonl", "folder"),
    made("a pipe", os.mkfifo, r"made\.jsonl", "pipe"),
    made("a broken link", lambda path: path.symlink_to("nowhere"), r"made\.jsonl"),
    made("a link to itself", lambda path: path.symlink_to(path), r"made\.jsonl"),
    made("a device", lambda path: path.symlink_to("/dev/zero"), r"made\.jsonl"),
    # Fields.
    row("a field missing", '{"prompt": "a"}', "completion"),
    row("a field misspelt", '{"prompt": "a", "complection": "b"}', "complection"),
    row("a number for a text", '{"prompt": "a", "completion": 5}', "completion"),
    row("null for a text", '{"prompt": "a", "completion": null}', "completion"),
    row("an empty answer", '{"prompt": "a", "completion": ""}', "completion"),
    row("another format than before", '{"instruction": "a", "output": "b"}', "alpaca", "prompt_completion"),
    rows("no format we know", '{"question": "a", "reply": "b"}\n', r"rows\.jsonl:1", "question"),
    rows("an empty object", "{}\n", r"rows\.jsonl:1"),
    rows("messages without an answer", '{"messages": [{"role": "user", "content": "a"}]}\n', r"rows\.jsonl:1",
         template="chatml"),
    rows("no messages", '{"messages": []}\n', r"rows\.jsonl:1", template="chatml"),
    rows("messages that are a text", '{"messages": "hello"}\n', r"rows\.jsonl:1", "messages", template="chatml"),
    rows("a message that is a text", '{"messages": ["hello"]}\n', r"rows\.jsonl:1", "role", template="chatml"),
    rows("an unknown role", json.dumps({"messages": [{"role": "wizard", "content": "a"},
                                                     {"role": "assistant", "content": "b"}]}) + "\n",
         r"rows\.jsonl:1", "wizard", template="chatml"),
    rows("a message without content", '{"messages": [{"role": "user"}]}\n', r"rows\.jsonl:1", template="chatml"),
    rows("conversations of unknown speakers", json.dumps({"conversations": [
        {"from": "alien", "value": "a"}, {"from": "gpt", "value": "b"}]}) + "\n", r"rows\.jsonl:1", "alien",
        template="chatml"),
    rows("a history that is a text", '{"instruction": "a", "output": "b", "history": "c"}\n', r"rows\.jsonl:1",
         "history", template="alpaca"),
    rows("a text row of nothing", '{"text": ""}\n', r"rows\.jsonl:1", "text"),
    Case(
        "fields that name absent keys", 3, (r"rows\.jsonl:1", "nowhere"),
        lambda place: place.train(datasets=[{"path": str(place.file("rows.jsonl", '{"a": "x", "b": "y"}\n')),
                                             "fields": {"prompt": "a", "completion": "nowhere"}}])),
    # Length.
    rows("over length", GOOD + json.dumps({"prompt": "pod " * 100, "completion": "x"}) + "\n", r"rows\.jsonl:2",
         "overlength", max_length=64),
    rows("cut to nothing that is learned", json.dumps({"prompt": "pod " * 100, "completion": "x"}) + "\n",
         r"rows\.jsonl:1", "no supervised", max_length=64, overlength="truncate"),
    rows("all dropped", json.dumps({"prompt": "pod " * 100, "completion": "x"}) + "\n", "no row is left",
         max_length=64, overlength="drop"),
    rows("over its bytes", GOOD + json.dumps({"prompt": "pod " * 1000, "completion": "x"}) + "\n", r"rows\.jsonl:2",
         "max_row_bytes", max_row_bytes=2000),
    rows("one row to split", GOOD, "split", eval_split=0.5),
    two_files("the second of two files", GOOD, "{nonsense\n", r"two\.jsonl:1"),
    two_files("both of two files", '{"prompt": "a"}\n', '{"prompt": "a"}\n', r"one\.jsonl:1", r"two\.jsonl:1"),
    Case("bad evaluation data", 3, (r"eval\.jsonl:1",),
         lambda place: place.train(eval_datasets=[place.file("eval.jsonl", "{}\n")])),
    Case("bad data of the verb eval", 3, (r"rows\.jsonl:1",),
         lambda place: place.eval(data=place.file("rows.jsonl", '{"prompt": 1, "completion": "a"}\n'))),
    Case("missing data of the verb eval", 3, ("nowhere",), lambda place: place.eval(data="nowhere.jsonl")),
    # Not wrong enough to stop, and said.
    rows("a row twice", GOOD * 4, code=0),
    Case("evaluation rows among those of training", 0, ("warning", "evaluation rows"),
         lambda place: place.train(eval_datasets=[place.rows])),
]

outcomes, test_bad_input = table_of(CASES)
