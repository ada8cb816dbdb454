"""The scores of answers against sacrebleu, rouge-score and jsonschema, number by number."""

import json
import random
import re
import string
from collections import Counter

import jsonschema
import pytest
import sacrebleu
from program import run, write_rows
from rouge_score import rouge_scorer

PAIRS = [
    ("The Pod runs on a node.", "A Pod runs on the node."),
    ("an Ingress routes traffic", "An ingress, routes: traffic!"),
    ("", ""), ("", "something"), ("something", ""), ("   \n ", "a"),
    ("集群中的节点运行容器。", "集群的节点会运行容器。"), ("服务", "服务"), ("Pod 是最小的单元", "Pod 是 最小 单元"),
    ("1,234.5 kB at 10-20%, e.g. 3.14-foo", "1,234.5 kB at 10 - 20 %, eg 3.14 foo"),
    ("a&amp;b &lt;tag&gt; &quot;q&quot; <skipped>x", 'a&b <tag> "q" x'), ("word-\nwrapped text", "wordwrapped text"),
    ("naïve café — “quoted” … ¿qué?", "naive café - \"quoted\" ... ¿qué?"), ("ΟΔΥΣΣΕΥΣ İstanbul K", "οδυσσευς istanbul k"),
    ("line\u2028sep\u00a0nbsp\u3000wide\x1ffs", "line sep nbsp wide fs"), ("emoji 👩‍💻 ok", "emoji 👩‍💻 OK"),
    ("the the the the", "the cat the"), ("a_b c_d", "a b c d"), ("it's the dog's", "its dogs"), ("..,,..", ",.,."),
    ("x .1 , 2. 3,4 -5- 6-7", "x.1,2.3,4-5-6-7"), ("one two three", "one two three"), ("4.", "4"), ("é", "é"),
]


def made_pairs(count):
    """Random texts of every kind of character, the second a changed copy of the first."""
    rng = random.Random(5)
    letters = "abcdefgh THE a an 0123456789 .,-:;!?'\"()[]{}<>&$%^_`~ \n\t 集群节点容器 äöüßÅσΣς \u00a0\u3000 é 🙂 & -\n the"
    pairs = []
    for _ in range(count):
        said = "".join(rng.choice(letters) for _ in range(rng.randint(0, 60)))
        wanted = "".join(c if rng.random() < 0.8 else rng.choice(letters) for c in said)
        pairs.append((said, wanted))
    return pairs


def score(tmp_path, pairs, *more):
    rows = [row if isinstance(row, dict) else {"prediction": row[0], "reference": row[1]} for row in pairs]
    file = write_rows(tmp_path / "answers.jsonl", rows)
    run("eval", "--answers", file, "--json", tmp_path / "s.json", "--predictions", tmp_path / "p.jsonl", *more)
    scored = [json.loads(line)["scores"] for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")]  # not at U+2028
    return json.loads((tmp_path / "s.json").read_text())["results"][0], scored


def squad_words(text):
    """As the data set's own evaluation has it: lower case, no punctuation, no articles, single spaces."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def squad_f1(said, wanted):
    a, b = squad_words(said), squad_words(wanted)
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b))


@pytest.mark.parametrize("pairs", [PAIRS, made_pairs(400)], ids=["chosen", "made"])
def test_against_the_packages(tmp_path, pairs):
    whole, rows = score(tmp_path, pairs)
    said, wanted = map(list, zip(*pairs, strict=True))
    assert whole["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [wanted], force=True).score, abs=1e-9)
    assert whole["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, [wanted]).score, abs=1e-9)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    theirs = [scorer.score(w, s) for s, w in pairs]
    for ours, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert [row[ours] for row in rows] == pytest.approx([t[name].fmeasure for t in theirs], abs=1e-12)
        assert whole[ours] == pytest.approx(sum(t[name].fmeasure for t in theirs) / len(pairs), abs=1e-12)
    assert [row["chrf"] for row in rows] == pytest.approx(
        [sacrebleu.sentence_chrf(s, [w]).score for s, w in pairs], abs=1e-9)
    assert [row["f1"] for row in rows] == pytest.approx([squad_f1(s, w) for s, w in pairs], abs=1e-12)
    assert [row["exact_match_normalized"] for row in rows] == [float(squad_words(s) == squad_words(w)) for s, w in pairs]


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_bleu_of_one_row(tmp_path, pair):
    whole, _ = score(tmp_path, [pair])
    assert whole["bleu"] == pytest.approx(sacrebleu.corpus_bleu([pair[0]], [[pair[1]]]).score, abs=1e-9)


SCHEMA = {"type": "object", "required": ["kind", "replicas"], "additionalProperties": False,
          "properties": {"kind": {"enum": ["Pod", "Service"]}, "replicas": {"type": "integer", "minimum": 1, "maximum": 9},
                         "labels": {"type": "array", "items": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"},
                                    "uniqueItems": True, "maxItems": 3},
                         "port": {"anyOf": [{"type": "null"}, {"type": "number", "multipleOf": 5}]}}}
DOCUMENTS = ['{"kind": "Pod", "replicas": 2}', '{"kind": "Pod"}', '{"kind": "Node", "replicas": 2}', "not json", "[]", "",
             '{"kind": "Pod", "replicas": 0}', '{"kind": "Pod", "replicas": 2.5}', '{"kind": "Pod", "replicas": "2"}',
             '{"kind": "Pod", "replicas": 2, "x": 1}', '{"kind": "Service", "replicas": 9, "labels": ["ab", "cd"]}',
             '{"kind": "Service", "replicas": 9, "labels": ["ab", "ab"]}', '{"kind": "Pod", "replicas": 1, "labels": ["A1"]}',
             '{"kind": "Pod", "replicas": 1, "port": 15}', '{"kind": "Pod", "replicas": 1, "port": 16}',
             '{"kind": "Pod", "replicas": 1, "port": null}', ' \n{"kind": "Pod", "replicas": 1}\n ']


def test_json_schema(tmp_path):
    def valid(text):
        try:
            jsonschema.Draft7Validator(SCHEMA).validate(json.loads(text))
        except (ValueError, jsonschema.ValidationError):
            return 0
        return 1
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    wanted = [valid(text) for text in DOCUMENTS]
    assert 0 < sum(wanted) < len(wanted)
    pairs = [(text, "{}") for text in DOCUMENTS]
    whole, rows = score(tmp_path, pairs, f"format_check={tmp_path / 'schema.json'}")
    assert [row["format_check"] for row in rows] == wanted
    assert whole["format_check"] == pytest.approx(sum(wanted) / len(wanted))
    inline = [{"prediction": text, "reference": "{}", "format_check": json.dumps(SCHEMA)} for text in DOCUMENTS]
    assert [row["format_check"] for row in score(tmp_path, inline)[1]] == wanted


def test_bootstrap_is_that_of_numpy_on_average(tmp_path):
    """The interval of a mean, against the percentiles of a bootstrap by numpy; the same seed gives the same."""
    import numpy
    rng = numpy.random.default_rng(0)
    pairs = [("yes" if rng.random() < 0.3 else "no", "yes") for _ in range(200)]
    first, _ = score(tmp_path, pairs)
    again, _ = score(tmp_path, pairs)
    other, _ = score(tmp_path, pairs, "seed=7")
    low, high = first["confidence_95"]["exact_match"]
    assert again["confidence_95"] == first["confidence_95"] != other["confidence_95"]
    values = numpy.array([float(s == w) for s, w in pairs])
    means = rng.choice(values, (20000, len(values))).mean(axis=1)
    assert [low, high] == pytest.approx(numpy.percentile(means, [2.5, 97.5]), abs=0.011)  # of 1000 draws
