"""Where a new user stops: every one of these was typed in a first hour with data of one's own."""

import json

import program
import pytest

BASE = program.SOURCE_DIR / "data/tiny-base"
ROWS = [{"instruction": f"How do I ship service {i}?", "output": f"Run ship rollout {i}."} for i in range(20)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    program.write_rows(folder / "rows.jsonl", ROWS)
    (folder / "rows.csv").write_text("question,answer\nWhy?,Because.\n")
    (folder / "qa.json").write_text(json.dumps([{"question": row["instruction"], "answer": row["output"]} for row in ROWS]))
    (folder / "mine.yaml").write_text(program.run("init", "--model", BASE, "--data", "rows.jsonl", cwd=folder).stdout)
    program.run("train", "--config", "mine.yaml", "max_steps=2", "eval_steps=2", "output_dir=out", cwd=folder)
    return folder


@pytest.mark.parametrize("words, code, said", [
    ([], 2, "Subcommands:"),
    (["trian", "--config", "mine.yaml"], 2, "there is no verb 'trian'; did you mean 'train'?"),
    (["serve"], 2, "there is no verb 'serve'; it has: train, eval"),
    (["train", "--model", "x"], 2, "'train' has no option --model; settings are written without dashes: model_name_or_path=VALUE"),
    (["train", "--learning-rate", "1e-4"], 2, "settings are written without dashes: learning_rate=VALUE"),
    (["train", "--resum"], 2, "'train' has no option --resum; did you mean '--resume'?"),
    (["train", "-c", "mine.yaml"], 2, "'train' has no option -c; it has: "),
    (["train", "rows.jsonl"], 2, "data are given as datasets=rows.jsonl"),
    (["train", "mine.yaml"], 2, "a configuration file is given with --config mine.yaml"),
    (["train", "--config", "rows.jsonl"], 2, "these are data; a configuration is YAML"),
    (["init", "--model", str(BASE), "--data", "rows.csv"], 3, "rows.csv: a .csv file is not read; expected JSON Lines. With pandas:"),
    (["init", "--model", str(BASE), "--data", "qa.json"], 3, "here: datasets: [{path: FILE, fields: {instruction: question, output: answer}}]"),
    (["init", "--model", "Someone/model-8b", "--data", "rows.jsonl"], 4, "hf download Someone/model-8b --local-dir FOLDER"),
    (["generate", "--prompt", "hi"], 2, "as --model FOLDER"),
    (["generate", "--model", "out", "--prompt", "hi"], 4, "holds an adapter, not a model; give it with --adapter"),
])
def test_what_is_typed_first(place, words, code, said):
    assert said in program.run(*words, cwd=place, expect=code).stderr


def test_help_is_a_verb_too():
    assert program.run("help").stdout == program.run("--help").stdout


def test_the_conversion_that_is_offered_for_a_table_works(place, tmp_path):
    pytest.importorskip("pandas")
    import subprocess
    import sys
    said = program.run("train", f"model_name_or_path={BASE}", "datasets=rows.csv", "output_dir=x", cwd=place, expect=3).stderr
    command = said[said.index("python3 -c"):].strip().splitlines()[0].replace("python3", sys.executable, 1)
    subprocess.run(["bash", "-c", command], cwd=place, check=True)
    assert json.loads((place / "rows.jsonl").read_text()) == {"question": "Why?", "answer": "Because."}
    program.write_rows(place / "rows.jsonl", ROWS)


def test_the_fields_that_are_offered_work(place):
    program.run("train", f"model_name_or_path={BASE}", "datasets=[{path: qa.json, fields: {instruction: question, output: answer}}]",
                "template=alpaca", "max_steps=1", "output_dir=fields", cwd=place)


def test_eval_takes_what_eval_split_held_out(place):
    """The configuration that `init` writes has eval_split; `eval` scores those rows, and training never saw them."""
    done = program.run("eval", "--config", "mine.yaml", "output_dir=out", "--predictions", "p.jsonl", "--json", "-", cwd=place)
    result = {entry["variant"]: entry for entry in json.loads(done.stdout)["results"]}
    assert result["base"]["examples"] == 2 and result["adapter"]["examples"] == 2 and result["base"]["data"] == "rows.jsonl"
    metrics = [json.loads(line) for line in (place / "out/metrics.jsonl").read_text().splitlines()]
    assert result["base"]["loss"] == pytest.approx(metrics[0]["eval_loss"], rel=1e-5)  # before the first step
    assert result["adapter"]["loss"] == pytest.approx([line["eval_loss"] for line in metrics if "eval_loss" in line][-1], rel=1e-5)


def test_init_gives_a_small_model_a_rate_that_moves_it(place):
    assert "learning_rate: 3e-3 " in (place / "mine.yaml").read_text()
    assert "learning_rate: 2e-4" in program.run("init").stdout
