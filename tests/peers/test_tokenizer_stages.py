"""Every stage, model and flag of a tokenizer.json beside `tokenizers`, with small files made here."""

import json
import unicodedata

import pytest

import texts
import tokens

tokenizers = pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

TEXTS = texts.SAMPLES + texts.random_texts(300, 7)
CORPUS = [text for text in texts.SAMPLES if text] * 3 + ["low lower lowest new newer newest wide wider widest"] * 20
# Marks that are younger than the tables of `tokenizers`.
YOUNG = [chr(value) for value in range(0x300, 0x3000) if unicodedata.category(chr(value)).startswith("M")
         and normalizers.StripAccents().normalize_str(chr(value))]
TEXTS = [text for text in TEXTS if not any(mark in text for mark in YOUNG)]


def save(tokenizer, folder):
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def check(tokenizer, folder, rows=None, specials=False):
    tokens.compare_with_library(save(tokenizer, folder), tokenizer, rows or TEXTS, specials)


def bpe(**options):
    """A small BPE over characters of the corpus."""
    trainer = trainers.BpeTrainer(vocab_size=options.pop("vocab_size", 600), show_progress=False,
                                  special_tokens=options.pop("special_tokens", ["<unk>"]),
                                  initial_alphabet=options.pop("initial_alphabet", []),
                                  **{key: options.pop(key) for key in ("continuing_subword_prefix", "end_of_word_suffix") if key in options})
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.pre_tokenizer = None
    return tokenizer


def byte_level(**options):
    return bpe(vocab_size=700, special_tokens=[], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)


def with_settings(tokenizer, **settings):
    """The same tokenizer with other settings of its model."""
    content = json.loads(tokenizer.to_str())
    content["model"].update(settings)
    return Tokenizer.from_str(json.dumps(content))


@pytest.fixture(scope="module")
def characters():
    return bpe(unk_token="<unk>").to_str()


NORMALIZERS = {
    "nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(), "nfkd": normalizers.NFKD(),
    "nmt": normalizers.Nmt(), "lowercase": normalizers.Lowercase(), "strip": normalizers.Strip(),
    "strip_left": normalizers.Strip(left=True, right=False), "strip_right": normalizers.Strip(left=False, right=True),
    "strip_accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "replace": normalizers.Replace("a", "bb"), "replace_gone": normalizers.Replace("e", ""),
    "replace_regex": normalizers.Replace(Regex(r"\s{2,}|[aeiou]+"), "_"),
    "prepend": normalizers.Prepend("▁"), "byte_level": normalizers.ByteLevel(),
    "bert": normalizers.BertNormalizer(), "bert_cased": normalizers.BertNormalizer(lowercase=False),
    "bert_accents": normalizers.BertNormalizer(lowercase=False, strip_accents=True),
    "bert_plain": normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=True),
    "llama": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "chain": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Prepend("x")]),
}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizer(name, tmp_path):
    tokenizer = byte_level()
    tokenizer.normalizer = NORMALIZERS[name]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    check(tokenizer, tmp_path)


BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
PATTERNS = [r"\s+", r"\d", r"\w+", r"[A-Z]", r"(?=[A-Z])", r"(?i)[aeiou]", r"\p{Han}+|\p{Hiragana}", r"[^\S\n]+", r"\h+", r"\bt",
            r"[[:punct:]]", r"[\w&&[^a-f]]+", r"[a-c[x-z]]+", r"\p{^L}", r"\p{Lu}\p{Ll}*", r"[^\r\n\p{L}\p{N}]?+\p{L}++", r"x{,2}y|a{2}+",
            r"^.", r".$", r"(?m:a.b)", r"\X", r"\p{Alpha}+", r"[\u4e00-\u9fff]", r"\x{1F600}|[\x{1F44D}👨]", r"(?<=a)b", r"\v|\R"]
SPLITS = {f"{pattern!r}-{behavior}-{invert}": (pattern, behavior, invert)
          for i, pattern in enumerate(PATTERNS)
          for behavior in (BEHAVIORS if i < 5 else ["isolated"])
          for invert in ((False, True) if i < 3 else (False,))}


@pytest.mark.parametrize("name", SPLITS)
def test_split(name, tmp_path):
    pattern, behavior, invert = SPLITS[name]
    tokenizer = byte_level()
    split = pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    check(tokenizer, tmp_path)


PRE_TOKENIZERS = {
    "byte_level": pre_tokenizers.ByteLevel(), "byte_level_plain": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "byte_level_no_regex": pre_tokenizers.ByteLevel(use_regex=False), "whitespace": pre_tokenizers.Whitespace(),
    "whitespace_split": pre_tokenizers.WhitespaceSplit(), "bert": pre_tokenizers.BertPreTokenizer(),
    "digits": pre_tokenizers.Digits(), "digits_each": pre_tokenizers.Digits(individual_digits=True),
    "delimiter": pre_tokenizers.CharDelimiterSplit("a"), "scripts": pre_tokenizers.UnicodeScripts(),
    "metaspace": pre_tokenizers.Metaspace(), "metaspace_first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "metaspace_never": pre_tokenizers.Metaspace(prepend_scheme="never"),
    "metaspace_whole": pre_tokenizers.Metaspace(split=False), "metaspace_other": pre_tokenizers.Metaspace(replacement="_"),
    "string": pre_tokenizers.Split(" ", "merged_with_previous"), "string_invert": pre_tokenizers.Split("ab", "removed", invert=True),
    "string_special": pre_tokenizers.Split(".", "isolated"),
    **{f"punctuation_{behavior}": pre_tokenizers.Punctuation(behavior) for behavior in BEHAVIORS},
    "sequence": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(),
                                         pre_tokenizers.Metaspace()]),
    "falcon": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                                       pre_tokenizers.Digits(), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]),
}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pre_tokenizer(name, tmp_path):
    tokenizer = byte_level(unk_token=None)
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    check(tokenizer, tmp_path)


@pytest.mark.parametrize("options", [
    {}, {"fuse_unk": True}, {"byte_fallback": True}, {"byte_fallback": True, "fuse_unk": True}, {"ignore_merges": True}, {"unk_token": None},
    {"continuing_subword_prefix": "##"}, {"end_of_word_suffix": "</w>"}], ids=str)
@pytest.mark.parametrize("split", [True, False])
def test_bpe(options, split, tmp_path):
    training = {key: value for key, value in options.items() if key.endswith(("prefix", "suffix"))}
    special = ["<unk>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if "byte_fallback" in options else [])
    tokenizer = bpe(**{"unk_token": "<unk>", **training}, special_tokens=special, vocab_size=900)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    tokenizer = with_settings(Tokenizer.from_str(json.dumps(content)), **{"unk_token": "<unk>", **options})
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    check(tokenizer, tmp_path)


def test_bpe_with_part_of_the_bytes(tmp_path):
    tokenizer = bpe(unk_token="<unk>", special_tokens=["<unk>"] + [f"<0x{byte:02X}>" for byte in range(0x80, 0xE8)])
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    check(with_settings(Tokenizer.from_str(json.dumps(content)), byte_fallback=True, fuse_unk=True), tmp_path)


def test_merges_in_both_spellings(tmp_path):
    tokenizer = byte_level()
    content = json.loads(tokenizer.to_str())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokens.compare_with_library(tmp_path, tokenizer, TEXTS)


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("stage", [pre_tokenizers.Metaspace(), None], ids=["words", "whole"])
def test_unigram(byte_fallback, stage, tmp_path):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    content["model"]["byte_fallback"] = byte_fallback
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = stage
    tokenizer.decoder = decoders.Metaspace()
    check(tokenizer, tmp_path)


def test_word_piece_and_word_level(tmp_path):
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.decoder = decoders.WordPiece()
    check(tokenizer, tmp_path / "piece")
    check(tokenizer, tmp_path / "piece", specials=True)
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False))
    check(words, tmp_path / "word")


DECODERS = {
    "none": None, "byte_level": decoders.ByteLevel(), "byte_fallback": decoders.ByteFallback(), "fuse": decoders.Fuse(),
    "metaspace": decoders.Metaspace(), "metaspace_never": decoders.Metaspace(prepend_scheme="never"),
    "replace": decoders.Replace("e", "E"), "replace_regex": decoders.Replace(Regex("[0-9]+"), "#"), "strip": decoders.Strip(" ", 1, 0),
    "strip_right": decoders.Strip("a", 0, 1), "bpe": decoders.BPEDecoder(), "bpe_other": decoders.BPEDecoder(suffix="e"),
    "word_piece": decoders.WordPiece(), "word_piece_raw": decoders.WordPiece(prefix="l", cleanup=False), "ctc": decoders.CTC(),
    "ctc_raw": decoders.CTC(pad_token="a", word_delimiter_token="l", cleanup=False),
    "llama": decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoder(name, tmp_path):
    tokenizer = bpe(unk_token="<unk>", special_tokens=["<unk>", "<pad>"] + [f"<0x{byte:02X}>" for byte in range(256)], vocab_size=800)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:2]
    tokenizer = with_settings(Tokenizer.from_str(json.dumps(content)), byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if DECODERS[name] is not None:
        tokenizer.decoder = DECODERS[name]
    check(tokenizer, tmp_path, [text for text in TEXTS if text])


FLAGS = [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True},
         {"single_word": True, "lstrip": True, "rstrip": True}, {"special": True}]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens(flags, normalized, tmp_path):
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<A>", "<AB>", "low", "Übung", "a b", "ℌ", "\u0301", "  ", "ing"]
    tokenizer.add_tokens([AddedToken(name, normalized=normalized, **flags) for name in names])
    rows = ["<A><AB> <A> <AB>x", " x <A>  y", "low slow lowing low, _low low_", "übung Übung ÜBUNG ubung", "a b  A B a  b", "ℌh", "e\u0301\u0301",
            "   <A>   <A>    ", "sing ing ingℌ", "<a> <ab>", "<A>\n\n<A>\t", "low low  low"]
    check(tokenizer, tmp_path, rows + TEXTS)


def test_added_tokens_with_other_ids(tmp_path):
    tokenizer = byte_level()
    content = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [{"id": id, "content": name, "special": special, **flags}
                               for id, name, special in ((5000, "<a>", True), (7, "<b>", False), (1, "a", True), (6000, "<c>", True))]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    check(tokenizer, tmp_path, ["<a>x<b> a <c>", "abc"])


@pytest.mark.parametrize("name", ["template", "roberta", "bert", "sequence", "byte_level"])
def test_post_processor(name, tmp_path):
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    first, last, other = (tokenizer.token_to_id(token) for token in ("<s>", "</s>", "<x>"))
    template = processors.TemplateProcessing(single="<s> <s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)])
    tokenizer.post_processor = {
        "template": template, "roberta": processors.RobertaProcessing(("</s>", last), ("<s>", first)),
        "bert": processors.BertProcessing(("</s>", last), ("<s>", first)), "byte_level": processors.ByteLevel(),
        "sequence": processors.Sequence([processors.ByteLevel(), template])}[name]
    check(tokenizer, tmp_path, specials=True)
    check(tokenizer, tmp_path)


def test_saved_padding_and_truncation_are_ignored(tmp_path):
    tokenizer = byte_level()
    save(tokenizer, tmp_path / "plain")
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    save(tokenizer, tmp_path / "padded")
    assert tokens.inspect(tmp_path / "padded", TEXTS) == tokens.inspect(tmp_path / "plain", TEXTS)
