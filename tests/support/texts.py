"""Texts that tokenizers trip over, and the rows of shared data sets."""

import json
import random

import program

SAMPLES = [
    "", " ", "a", "Hello world", " Hello  world ", "   ", "\n", "\r\n", "\t\n \n", "a\n\n\nb", "a \n b\t\tc", " \n",
    "I'm you're HE'S we'Ll they'd 'tis rock'n'roll 'ſ 'S's", "don't can't won't it's John's", "' ' '' 'x 're",
    "1 12 123 1234 12345 3.14 1,000,000 ½ ² Ⅷ ٣ 一二三 ①", "x=1;y=22;z=333", "foo_bar fooBar FOO-BAR foo.bar()",
    "The quick brown fox jumps over the lazy dog. 他说：“你好，世界！”这是一个测试。",
    "こんにちは世界 カタカナ ﾊﾝｶｸ 東京タワー", "한국어 텍스트 각난ᄃᆞᆯ", "Привет, мир! Ёлка", "Γειά σου Κόσμε ΟΔΥΣΣΕΎΣ",
    "مرحبا بالعالم ١٢٣", "שלום עולם", "สวัสดีชาวโลก", "नमस्ते दुनिया क्षि", "ሰላም ዓለም", "Tiếng Việt rất đẹp",
    "İstanbul ıI ŞĞ ß ẞ ﬁ ﬀ Ǆ ǅ ǆ", "e\u0301 é a\u0308\u0323 ạ̈ ñ n\u0303 Å Å K Ω", "\u0301abc \u0301", "ﷺ ㎏ ⅓ ﬃ ① Ａ ａ １ ｶﾞ",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 🇺 😶‍🌫️ ❤️ 1️⃣ #️⃣", "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg", "\u00a0x\u2003y\u3000z\u2028w\u2029v\u0085u\u180et",
    "\x00\x01\x07\x0b\x0c\x1b\x7f\x80\x8f\x9f", "\ufffd \ufffe \uffff \U0010ffff \ufdd0 \u0378 \U000e0080 \ue000",
    "▁ ▁▁ a▁b ▁a", "Ġ Ċ Ã© <0x0A> <0xFF> ## ##ing </w>", "𝒜𝓁𝓅𝒽𝒶 𝟙𝟚𝟛 𐍈 𠀀𠀁 🜁",
    "<s> </s> <unk> <pad> [INST] hi [/INST] <<SYS>> <|im_start|>user\nhi<|im_end|> <|endoftext|> <|user|> <|end|>",
    "x<|endoftext|>y <|endoftext|>  z  <|im_end|>\n", "<s>a</s><s> b </s>", "<|fim_prefix|>def f():<|fim_suffix|><tool_call>",
    "def f(x):\n    if x > 0:\n\treturn [i**2 for i in range(10)]  # done\n", "{\"a\": [1, 2.5e-3, null], \"b\": \"\\u00e9\"}",
    "https://example.com/path?q=a%20b&c=d#frag me@mail.org", "!!!??? ... --- === ***", "$100 €5 £3 ¥9 +-*/=<>|~^`",
    "a" * 300, " " * 300, "ab" * 150, "\n" * 100, "!" * 200, "你" * 200, "9" * 100, "é" * 100, "👍" * 60, "'" * 50,
]


def random_texts(count, seed):
    """Mixtures of everything: words, scripts, white space, marks, specials, and any code points."""
    rng = random.Random(seed)
    ranges = [(0x20, 0x7e)] * 6 + [(0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff),
                                   (0xe00, 0x11ff), (0x1e00, 0x20cf), (0x2100, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x9fff),
                                   (0xac00, 0xd7a3), (0xf900, 0xffef), (0x1f300, 0x1faf8), (0, 0x20)]
    pieces = [word for text in SAMPLES for word in text.split(" ") if len(word) < 30] + [" ", "  ", "\n", "\t", " \n", "\r\n"]

    def characters():
        low, high = rng.choice(ranges)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6)))

    def known(text):  # assigned in the Unicode versions that every library here knows, or not at all
        import unicodedata
        return "".join(c for c in text if unicodedata.category(c) not in ("Cs", "Cn"))

    texts = []
    for _ in range(count):
        parts = [rng.choice(pieces) if rng.random() < 0.6 else known(characters()) for _ in range(rng.randint(1, 12))]
        texts.append(rng.choice(["", " "]).join(parts))
    return texts


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _rows(path):
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError:
        pass
    lines = []
    for line in text.split("\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append(line)
    return lines


def instruction_texts(limit=None, seed=0):
    """Every text of the shared instruction data, or a sample of it."""
    folder = program.SHARED_DIR / "data/instructions"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".txt") and "SOURCE" not in path.name)
    texts = sorted({text for path in files for text in _strings(_rows(path)) if text})
    if limit is not None and len(texts) > limit:
        texts = random.Random(seed).sample(texts, limit)
    return texts
