"""finetune eval and finetune generate from outside."""

import json
import math

import pytest
from program import predictions, run, write_config, write_rows

SCORES = {"examples", "supervised_tokens", "loss", "perplexity", "token_accuracy"}


def evaluate(*arguments):
    return json.loads(run("eval", *arguments, "template=none", "dtype=float32", "--json", "-").stdout)


def test_json(model, adapter, rows_file):
    result = evaluate("--model", model, "--adapter", adapter, "--data", rows_file)
    assert result["model"] == str(model) and result["adapter"] == str(adapter)
    by_variant = {entry["variant"]: entry for entry in result["results"]}
    assert by_variant.keys() == {"base", "adapter"}
    for entry in by_variant.values():
        assert SCORES <= entry.keys() and entry["data"] == str(rows_file) and entry["examples"] == 12
        assert entry["perplexity"] == pytest.approx(math.exp(entry["loss"]), rel=1e-6)
    assert by_variant["adapter"]["loss"] < by_variant["base"]["loss"]


def test_json_to_a_file_and_a_table(tmp_path, model, adapter, rows_file):
    done = run("eval", "--model", model, "--adapter", adapter, "--data", rows_file, "template=none",
               "--json", tmp_path / "scores.json")
    assert "base" in done.stdout and "adapter" in done.stdout
    assert len(json.loads((tmp_path / "scores.json").read_text())["results"]) == 2


def test_predictions_add_up(tmp_path, model, rows_file):
    rows = predictions(tmp_path, model, rows_file)["base"]
    assert [row["line"] for row in rows] == list(range(1, 13))
    assert all(row["file"] == str(rows_file) for row in rows)
    result = evaluate("--model", model, "--data", rows_file)["results"][0]
    tokens = sum(row["supervised_tokens"] for row in rows)
    assert tokens == result["supervised_tokens"]
    assert sum(row["nll"] for row in rows) / tokens == pytest.approx(result["loss"], rel=1e-5)


def test_lines_count_blank_ones(tmp_path, model):
    data = tmp_path / "rows.jsonl"
    data.write_text('\n{"prompt": "pod", "completion": " node"}\n\n\n{"prompt": "pod", "completion": " node"}\n')
    first, second = predictions(tmp_path, model, data)["base"]
    assert (first["line"], second["line"]) == (2, 5)
    assert first["nll"] == pytest.approx(second["nll"], rel=1e-6)


def test_with_a_configuration(tmp_path, model, adapter, rows_file):
    config = write_config(tmp_path / "c.yaml", model_name_or_path=model, output_dir=adapter, template="none",
                          eval_datasets=[rows_file], dtype="float32")
    result = json.loads(run("eval", "--config", config, "--json", "-").stdout)
    assert {entry["variant"] for entry in result["results"]} == {"base", "adapter"}
    assert result["results"] == evaluate("--model", model, "--adapter", adapter, "--data", rows_file)["results"]


def test_generation_scores(tmp_path, model, rows_file):
    result = evaluate("--model", model, "--data", rows_file, "--generate", "--predictions", tmp_path / "p.jsonl")
    entry = result["results"][0]
    assert 0 <= entry["exact_match"] <= 1 and 0 <= entry["valid_json"] <= 1
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    references = [json.loads(line)["completion"] for line in rows_file.read_text().splitlines()]
    assert [row["reference"].strip() for row in rows] == [text.strip() for text in references]
    assert all(isinstance(row["prediction"], str) for row in rows)


def test_a_memorised_row_is_an_exact_match(tmp_path, model):
    from program import train
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "pod =", "completion": ' {"a": 1}'}])
    out = train(tmp_path, model_name_or_path=model, datasets=[data], template="none", target_modules="all-linear",
                max_steps=60, learning_rate=2e-2)
    result = evaluate("--model", model, "--adapter", out, "--data", data, "--generate")
    scores = {entry["variant"]: entry for entry in result["results"]}
    assert scores["adapter"]["exact_match"] == 1 and scores["adapter"]["valid_json"] == 1
    assert scores["base"]["exact_match"] == 0
    answer = run("generate", "--model", model, "--adapter", out, "--prompt", "pod =", "--template", "none",
                 "--temperature", 0, "--json").stdout
    assert json.loads(answer)["completion"].strip() == '{"a": 1}'


def test_generate_stops_at_the_limit(model):
    done = run("generate", "--model", model, "--prompt", "pod", "--template", "none", "--max-new-tokens", 5,
               "--temperature", 0, "--json")
    answer = json.loads(done.stdout)
    assert {"prompt", "completion", "finish_reason", "tokens"} <= answer.keys()
    again = json.loads(run("generate", "--model", model, "--prompt", "pod", "--template", "none",
                           "--max-new-tokens", 5, "--temperature", 0, "--json").stdout)
    assert answer == again
