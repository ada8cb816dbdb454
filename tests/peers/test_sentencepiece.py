"""Small sentencepiece models trained here, beside the sentencepiece package; and the switches that transformers has."""

import io
import json

import pytest

import texts
import tokens

sentencepiece = pytest.importorskip("sentencepiece")

CORPUS = [text for text in texts.SAMPLES if text.strip() and "\0" not in text] * 4 + ["low lower lowest new newer newest wide wider 123 4567"] * 30
TEXTS = [text for text in texts.SAMPLES + texts.random_texts(400, 11) if "\0" not in text]


def train(folder, **options):
    model = io.BytesIO()
    options = {"vocab_size": 400, "model_type": "bpe", "character_coverage": 0.98, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, minloglevel=2, **options)
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def without_control(library, rows):
    """The library does not see control pieces written in a text; the program does."""
    control = [library.id_to_piece(i) for i in range(library.get_piece_size()) if library.is_control(i)]
    return [row for row in rows if not any(piece in row for piece in control)]


VARIANTS = [
    {}, {"byte_fallback": True, "vocab_size": 600}, {"user_defined_symbols": ["<|im_end|>", "foo", "▁x", "你好"]},
    {"control_symbols": ["[INST]", "[/INST]"]}, {"add_dummy_prefix": False}, {"remove_extra_whitespaces": False},
    {"normalization_rule_name": "identity"}, {"normalization_rule_name": "nfkc"}, {"normalization_rule_name": "nmt_nfkc_cf"},
    {"split_digits": True}, {"split_by_whitespace": False}, {"treat_whitespace_as_suffix": True}, {"unk_surface": " <?> "},
    {"byte_fallback": True, "vocab_size": 700, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
     "split_digits": True, "user_defined_symbols": ["\t", "  "]},
]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_trained(model_type, options, tmp_path):
    library = train(tmp_path, model_type=model_type, **options)
    rows = without_control(library, TEXTS)
    ids = [library.encode(row) for row in rows]
    tokens.compare(tmp_path, rows, ids, [library.decode(one) for one in ids])


@pytest.mark.parametrize("model_type", ["char", "word"])
def test_other_types(model_type, tmp_path):
    library = train(tmp_path, model_type=model_type)
    rows = without_control(library, TEXTS)
    tokens.compare(tmp_path, rows, [library.encode(row) for row in rows])


def test_control_pieces_are_recognised(tmp_path):
    library = train(tmp_path, control_symbols=["[INST]"])
    first, inst, last = (library.piece_to_id(piece) for piece in ("<s>", "[INST]", "</s>"))
    line = tokens.inspect(tmp_path, ["<s>[INST] low</s>"])[0]
    assert line["ids"] == [first, inst, *library.encode(" low"), last]
    line = tokens.inspect(tmp_path, ["low"], "--add-special-tokens")[0]
    assert line["ids"] == [first, *library.encode("low")]


@pytest.mark.parametrize("config", [{"add_bos_token": False, "add_eos_token": True}, {"add_bos_token": True, "add_eos_token": True}], ids=str)
def test_bos_and_eos_switches(config, tmp_path):
    library = train(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", **config}))
    line = tokens.inspect(tmp_path, ["low new"], "--add-special-tokens")[0]
    assert line["ids"] == [1] * config["add_bos_token"] + library.encode("low new") + [2] * config["add_eos_token"]


def test_legacy_and_prefix_space(tmp_path):
    """After a special token a legacy tokenizer begins again with a dummy prefix; others do not."""
    library = train(tmp_path)
    # The last of two settings in the serialized model counts: the same pieces without a dummy prefix.
    without = (tmp_path / "tokenizer.model").read_bytes() + b"\x1a\x02\x18\x00"
    plain = sentencepiece.SentencePieceProcessor(model_proto=without)
    base = {"bos_token": "<s>", "eos_token": "</s>"}
    expected = {(True, None): library.encode("low"), (False, None): plain.encode("low"), (True, False): plain.encode("low")}
    for (legacy, prefix), after in expected.items():
        config = {**base, "legacy": legacy, **({} if prefix is None else {"add_prefix_space": prefix})}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        line = tokens.inspect(tmp_path, ["new</s>low"])[0]
        assert line["ids"] == [*(plain if prefix is False else library).encode("new"), 2, *after]
