"""Tokenizers and templates that are wrong or hostile: exit code 4, the file, and no waiting."""

import json

from bad_input import Case, table_of

BYTES = {f"<0x{i:02X}>": i for i in range(256)}
PLAIN = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
         "decoder": {"type": "ByteFallback"},
         "model": {"type": "BPE", "vocab": {**BYTES, **{chr(97 + i): 256 + i for i in range(26)}, " ": 282, "</s>": 283},
                   "merges": [],
                   "byte_fallback": True}}


def folder_with(place, content, template=None, config=None):
    folder = place.copy_of(place.model)
    (folder / "tokenizer.model").unlink()
    if content is not None:
        text = content if isinstance(content, (bytes, str)) else json.dumps(content)
        (folder / "tokenizer.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "tokenizer_config.json").write_text(config if isinstance(config, str) else json.dumps(config or {"eos_token": "</s>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def tokenizer(name, content, *says, code=4):
    return Case(name, code, says, lambda place: place.eval(model=folder_with(place, content)))


def changed(name, path, value, *says, code=4):
    """A sound tokenizer.json with one member changed."""
    content = json.loads(json.dumps(PLAIN))
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tokenizer(name, content, *says, code=code)


def sentencepiece(name, content, *says):
    def arrange(place):
        folder = place.copy_of(place.model)
        (folder / "tokenizer.model").write_bytes(content)
        return place.eval(model=folder)
    return Case(name, 4, says, arrange)


def settings(name, text, *says, code=4):
    """tokenizer_config.json."""
    return Case(name, code, says, lambda place: place.eval(model=folder_with(place, PLAIN, config=text)))


def template(name, text, *says, code=4):
    """A chat template, with a row of messages that it has to render."""
    def arrange(place):
        data = place.file("chat.jsonl", json.dumps({"messages": [{"role": "user", "content": "pod"},
                                                                 {"role": "assistant", "content": "node"}]}) + "\n")
        return place.train(datasets=[data], template=place.file("chat.jinja", text))
    return Case(name, code, says, arrange)


ROUND = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"

CASES = [
    tokenizer("no tokenizer", None, "no tokenizer.json"),
    tokenizer("empty", "", "tokenizer.json"),
    tokenizer("cut short", '{"model": {"type": "BPE",', "tokenizer.json"),
    tokenizer("no object", "[]", "tokenizer.json"),
    tokenizer("nested for an overflow of the stack", '{"model":' * 300_000, "tokenizer.json"),
    tokenizer("no UTF-8", b'{"model": "\xff"}', "tokenizer.json"),
    tokenizer("LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "LFS"),
    tokenizer("no model", {**PLAIN, "model": None}, "tokenizer.json", "model"),
    changed("unknown model", ["model", "type"], "Quux", "Quux"),
    changed("vocabulary that is a list", ["model", "vocab"], [1, 2], "tokenizer.json"),
    changed("vocabulary of texts", ["model", "vocab"], {"a": "b"}, "tokenizer.json"),
    changed("negative id", ["model", "vocab", "a"], -1, "tokenizer.json"),
    changed("id of 2^40", ["model", "vocab", "a"], 1 << 40, "tokenizer.json"),
    changed("merge of absent tokens", ["model", "merges"], ["q zz"], "merge"),
    changed("merge of one part", ["model", "merges"], ["ab"], "merge"),
    changed("merges that are numbers", ["model", "merges"], [5], "merge"),
    changed("unknown normalizer", ["normalizer"], {"type": "Quux"}, "Quux"),
    changed("unknown pre-tokenizer", ["pre_tokenizer"], {"type": "Quux"}, "Quux"),
    changed("unknown decoder", ["decoder"], {"type": "Quux"}, "Quux"),
    changed("normalizer without a type", ["normalizer"], {}, "tokenizer.json"),
    changed("normalizers without end", ["normalizer"], json.loads(
        '{"type":"Sequence","normalizers":[' * 300 + "]}" * 300), "nested too deep"),
    changed("broken regular expression", ["pre_tokenizer"],
            {"type": "Split", "pattern": {"Regex": "(unclosed"}, "behavior": "Isolated"}, "unclosed|regular"),
    changed("endless repetition", ["pre_tokenizer"],
            {"type": "Split", "pattern": {"Regex": "(a{1000}){1000}{1000}"}, "behavior": "Isolated"}, "tokenizer.json|reg"),
    changed("hostile regular expression", ["pre_tokenizer"],
            {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated"}, code=0),
    changed("added tokens that are a text", ["added_tokens"], "<x>", "tokenizer.json"),
    sentencepiece("sentencepiece of no bytes", b"", "tokenizer.model"),
    sentencepiece("sentencepiece of rubbish", b"\xff" * 500, "tokenizer.model"),
    sentencepiece("sentencepiece that is a text", b"pod node\n" * 20, "tokenizer.model"),
    sentencepiece("sentencepiece as an LFS pointer", b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
    settings("tokenizer_config.json cut short", '{"bos_token": ', "tokenizer_config.json"),
    settings("tokenizer_config.json that is a list", "[]", "tokenizer_config.json"),
    settings("a token that is a number", '{"eos_token": 5}', "tokenizer_config.json"),
    settings("a token that is not there", '{"eos_token": "<nowhere>"}', "end-of-sequence", "eos_token"),
    # Templates.
    Case("no template of this name", 2, ("alpacca", "alpaca"), lambda place: place.train(template="alpacca")),
    Case("template file that is not there", 2, ("nowhere.jinja",),
         lambda place: place.train(template="nowhere.jinja")),
    template("broken", "{% for m in messages %}{{ m.content }", r"chat\.jinja"),
    template("without an end", "{% for m in messages %}{{ m.content }}", r"chat\.jinja"),
    template("unknown filter", "{{ messages | frobnicate }}", "frobnicate"),
    template("ends with an exception", "{{ raise_exception('no such day') }}" + ROUND, "no such day", code=3),
    template("an answer that is not there", "{% for m in messages %}{{ m.role }}</s>{% endfor %}", r"chat\.jsonl:1",
             code=3),
    template("nothing at all", "", r"chat\.jsonl:1", code=3),
    template("a loop of a thousand million",
             "{% for i in range(1000000000) %}x{% endfor %}" + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
    template("loops in loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
             "{% endfor %}{% endfor %}{% endfor %}" + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
    template("a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + ROUND,
             r"chat\.jsonl:1|chat\.jinja", code=3),
    template("a text without end", "{{ 'x' * 99999999999 }}" + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
    template("a number without end", "{{ 9 ** 9 ** 9 ** 9 }}" + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
    template("a division by zero", "{{ 1 // 0 }}" + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
    template("parentheses for an overflow of the stack", "{{ " + "(" * 200_000, r"chat\.jinja"),
    template("blocks for an overflow of the stack", "{% if a %}" * 100_000, r"chat\.jinja"),
    template("operators for an overflow of the stack", "{{ " + "not " * 200_000 + "a }}", r"chat\.jinja"),
    template("text doubled again and again", "{% set ns = namespace(a='x') %}" + "{% set ns.a = ns.a + ns.a %}" * 60
             + ROUND, r"chat\.jsonl:1|chat\.jinja", code=3),
]

outcomes, test_bad_input = table_of(CASES)
