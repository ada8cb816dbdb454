"""Scores, groups, regressions and a user's own scorer, from outside and without a model."""

import json

import pytest
from program import run, write_rows


def score(tmp_path, rows, *more):
    file = write_rows(tmp_path / "answers.jsonl", rows)
    done = run("eval", "--answers", file, "--json", "-", *more)
    return json.loads(done.stdout)["results"]


def answer(prediction, reference="x", **more):
    return {"prediction": prediction, "reference": reference, **more}


def test_exact_matches(tmp_path):
    rows = [answer(" yes\n", "yes"), answer("The yes!", "yes"), answer("no", "yes")]
    result = score(tmp_path, rows)[0]
    assert result["exact_match"] == pytest.approx(1 / 3)
    assert result["exact_match_normalized"] == pytest.approx(2 / 3)


def test_valid_json_is_about_rows_that_want_it(tmp_path):
    assert score(tmp_path, [answer('{"a": 1}', "{}"), answer("{", "[1]"), answer("text")])[0]["valid_json"] == 0.5
    assert score(tmp_path, [answer("[1]"), answer("3")])[0]["valid_json"] == 0.5


TABLE = "Here:\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n"


@pytest.mark.parametrize(("text", "valid"), [
    (TABLE, 1), ("| a |\n|---|\n| 1 |", 1), ("a | b\n--- | ---\n1 | 2", 1), ("| a | b |\n|---|\n| 1 | 2 |", 0),
    ("|---|\n| 1 |", 0), ("| a | b |\n|---|---|\n| 1 | 2 | 3 |", 0), ("| a\\|b |\n|---|\n| 1 |", 1), ("no table", 0),
    ("```\n" + TABLE + "```", 0), ("| a | b |\n|---|---|\n| 1 |", 1)])
def test_markdown_table(tmp_path, text, valid):
    assert score(tmp_path, [answer(text, TABLE)])[0]["valid_markdown_table"] == valid
    assert "valid_markdown_table" not in score(tmp_path, [answer(text, "none")])[0]


@pytest.mark.parametrize(("text", "valid"), [
    ("```yaml\na: 1\n```", 1), ("```\nopen", 0), ("plain", 0), ("~~~~\n```\n~~~~", 1), ("````\n```\nx", 0),
    ("``` inline ``` code", 0), ("```\na\n```\n\n```\nb", 0), ("  ```sh\nls\n  ```", 1)])
def test_code_block(tmp_path, text, valid):
    assert score(tmp_path, [answer(text, "```\nx\n```")])[0]["valid_code_block"] == valid


def test_term_recall(tmp_path):
    (tmp_path / "terms.txt").write_text("# a comment\nPod\nIngress controller\n\n节点\nCI/CD\n", encoding="utf-8")
    rows = [answer("the pod", "a Pod on the 节点"), answer("Pods", "pod"), answer("集群节点上 ci/cd INGRESS  controller", "节点, CI/CD"),
            answer("anything", "no term here")]
    result = score(tmp_path, rows, f"terms={tmp_path / 'terms.txt'}")[0]
    assert result["term_recall"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert result["contains_all_terms"] == pytest.approx(1 / 3)


def test_regular_expression_per_run_and_per_row(tmp_path):
    rows = [answer("v1.25"), answer("1.25"), answer("v1.25 and more"), answer("anything", format_check="any.*")]
    result = score(tmp_path, rows, r"format_check=v\d+\.\d+")[0]
    assert result["format_check"] == 0.5


def test_bad_format_checks_are_told_with_their_place(tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [answer("x"), answer("x", format_check="(")])
    message = run("eval", "--answers", file, expect=2).stderr
    assert "a.jsonl:2" in message and "regular expression" in message
    message = run("eval", "--answers", file, "format_check=missing.json", expect=2).stderr
    assert "missing.json" in message
    slow = write_rows(tmp_path / "b.jsonl", [answer("a" * 40 + "!")])
    assert "too many steps" in run("eval", "--answers", slow, "format_check=(a+)+", expect=2).stderr


def test_own_scorer(tmp_path):
    program = tmp_path / "scorer.py"
    program.write_text("import json, sys\n"
                       "for line in sys.stdin:\n"
                       "    row = json.loads(line)\n"
                       "    print(len(row['prediction']) - len(row['reference']))\n")
    rows = [answer("abcd", "a"), answer("ä", "ä"), answer("", "long")]
    results = score(tmp_path, rows, f"scorer=python3 {program}")
    assert results[0]["scorer"] == pytest.approx((3 + 0 - 4) / 3)
    assert results[0]["worst"][0]["line"] == 3  # its scorer is the lowest


@pytest.mark.parametrize(("command", "words"), [("cat", "expected a number"), ("exit 3", "ended with 3"),
                                                ("echo 1", "1 numbers for 2 rows"), ("printf 'nan\\nnan\\n'", "expected a number")])
def test_scorer_that_fails(tmp_path, command, words):
    file = write_rows(tmp_path / "a.jsonl", [answer("x"), answer("y")])
    message = run("eval", "--answers", file, f"scorer={command}", expect=2).stderr
    assert words in message and "scorer" in message


def test_groups_worst_and_regressions(tmp_path):
    rows = []
    for variant in ("base", "adapter"):
        for line, (source, tags) in enumerate([("wiki", ["easy"]), ("wiki", ["hard", "long"]), ("faq", ["easy"])], 1):
            good = {"base": [1, 0, 1], "adapter": [1, 1, 0]}[variant][line - 1]
            rows.append(answer("the right answer" if good else "zzz", "the right answer", variant=variant, file="d.jsonl",
                               line=line, source=source, tags=tags))
    base, adapter = score(tmp_path, rows)
    assert {g["source"]: g["exact_match"] for g in base["by_source"]} == {"wiki": 0.5, "faq": 1}
    assert {g["tag"]: (g["examples"], g["exact_match"]) for g in adapter["by_tag"]} == {"easy": (2, 0.5), "hard": (1, 1), "long": (1, 1)}
    assert "regressions" not in base
    found = adapter["regressions"]
    assert (found["better"], found["worse"]) == (1, 1) and [row["line"] for row in found["rows"]] == [3]
    assert adapter["worst"][0]["line"] == 3
    text = run("eval", "--answers", tmp_path / "answers.jsonl").stdout
    for words in ("by source", "wiki", "by tag", "1 of 3 rows better, 1 worse", "d.jsonl:3", "worst rows of adapter"):
        assert words in text, text


def test_rows_without_an_answer_are_refused(tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [{"prediction": "x"}])
    message = run("eval", "--answers", file, expect=3).stderr
    assert "a.jsonl:1" in message and "reference" in message


def test_predictions_can_be_scored_again(tmp_path, model, rows_file):
    """What --generate said, and what --answers says of its predictions, is the same."""
    run("eval", "--model", model, "--data", rows_file, "template=none", "dtype=float32", "--generate",
        "--predictions", tmp_path / "p.jsonl", "--json", tmp_path / "s.json")
    first = json.loads((tmp_path / "s.json").read_text())["results"][0]
    again = json.loads(run("eval", "--answers", tmp_path / "p.jsonl", "--json", "-").stdout)["results"][0]
    for name in ("exact_match", "f1", "rouge_l", "bleu", "chrf", "valid_json", "confidence_95"):
        assert first[name] == again[name]
