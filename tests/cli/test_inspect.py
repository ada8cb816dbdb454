"""`finetune inspect`: data, model, adapter, template."""

import json
import os
import random
import shutil
import subprocess

import program
import pytest

BASE = program.SOURCE_DIR / "data/tiny-base"
ROW = {"messages": [{"role": "user", "content": "Hi"}]}


def render(*arguments, rows=(ROW,), expect=0):
    done = program.run("inspect", "template", *arguments, expect=expect, stdin="".join(json.dumps(row) + "\n" for row in rows))
    return [json.loads(line) for line in done.stdout.splitlines()] if expect == 0 else done.stderr


def test_template_of_a_file(tmp_path):
    file = tmp_path / "my.jinja"
    file.write_text("{{ bos_token }}{{ messages[0].content }}{{ tools }}{{ eos_token }}{% if stop %}{{ raise_exception('no') }}{% endif %}")
    rows = [ROW, {**ROW, "bos_token": "<b>", "tools": []}, {**ROW, "stop": 1}]
    texts = render("--template", file, rows=rows)
    assert texts[:2] == [{"text": "<s>HiNone</s>"}, {"text": "<b>Hi[]</s>"}]
    assert texts[2]["error"].endswith("my.jinja:1: no")


def test_template_of_a_model(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<e>"}')
    assert render("--model", tmp_path) == [{"text": "Hi<e>"}]
    assert render("--template", "chatml") == [{"text": "<|im_start|>user\nHi<|im_end|>\n"}]
    assert "### Instruction:\nHi" in render("--model", BASE, rows=[{**ROW, "add_generation_prompt": True}])[0]["text"]


def test_template_errors(tmp_path):
    file = tmp_path / "bad.jinja"
    file.write_text("a\n{% if %}")
    assert "bad.jinja:2:" in render("--template", file, expect=4)
    assert "did you mean chatml" in render("--template", "chatm", expect=2)
    assert "--template" in render(expect=2)
    assert "no such folder" in render("--model", tmp_path / "none", expect=4)


def test_data_marks_what_is_trained(tmp_path):
    rows = [{"prompt": "What is a pod?", "completion": f" A pod is {i}."} for i in range(20)]
    data = program.write_rows(tmp_path / "rows.jsonl", rows)
    arguments = ["--model", BASE, f"datasets={data}", "template=none", "max_length=9"]
    text = program.run("inspect", "data", *arguments).stdout
    assert "What is a pod?[[ A pod is 0.</s>]]" in text
    assert "20 rows" in text and "above max_length 9: 20 (100.0 %); overlength: error" in text
    report = json.loads(program.run("inspect", "data", *arguments, "--json", "--samples", "1").stdout)["datasets"][0]
    assert report["rows"] == 20 and report["over_length"] == 20
    assert sum(bucket["rows"] for bucket in report["histogram"]) == 20
    assert len(report["samples"]) == 1 and report["samples"][0]["line"] == 1
    assert report["samples"][0]["text"].endswith("[[ A pod is 0.</s>]]")
    program.run("inspect", "data", "--model", BASE, expect=2)


def test_model_and_adapter(tmp_path):
    model = json.loads(program.run("inspect", "model", BASE, "--json").stdout)
    assert model["model_type"] == "llama" and model["template"] == "alpaca"
    assert {"q_proj", "v_proj", "down_proj"} <= set(model["linears"])
    assert f"{model['parameters']:,}" in program.run("inspect", "model", BASE).stdout
    data = program.write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}] * 4)
    out = program.train(tmp_path, model=BASE, datasets=[{"path": str(data)}], template="none", max_steps=1, lora_rank=4,
                        save_steps=1, target_modules=["q_proj", "v_proj"])
    adapter = json.loads(program.run("inspect", "adapter", out, "--json").stdout)
    assert adapter["rank"] == 4 and adapter["targets"] == ["q_proj", "v_proj"]
    assert adapter["parameters"] > 0 and adapter["dtype"] == "float32"
    program.run("inspect", "adapter", tmp_path / "none", expect=4)


def test_data_lint(tmp_path):
    words = "pods run on nodes and services give them one stable name inside the cluster network today".split()

    def row(i, text=None):
        return {"prompt": f"Question {i * 37}?", "completion": " " + (text or " ".join(random.Random(i).sample(words, len(words))) + ".")}
    rows = [row(i) for i in range(6)]
    rows += [rows[1], {**rows[2], "completion": rows[2]["completion"] + " Yes"}, row(7, "Hello {{name}}, welcome to the cluster"),
             row(8, "It isnâ€™t a node, it is a very long service")]
    train = program.write_rows(tmp_path / "train.jsonl", rows)
    held = program.write_rows(tmp_path / "eval.jsonl", [rows[3], row(9, "Something that nobody has said about volumes before")])
    arguments = ["--model", BASE, f"datasets={train}", f"eval_datasets={held}", "template=none"]
    found = json.loads(program.run("inspect", "data", *arguments, "--json").stdout)["findings"]
    kinds = {(finding["kind"], finding["where"]) for finding in found}
    assert kinds == {("duplicate", f"{train}:7"), ("near_duplicate", f"{train}:8"), ("placeholder", f"{train}:9"),
                     ("encoding", f"{train}:10"), ("leakage", f"{held}:1")}
    assert any(f"the same as {train}:2" == finding["what"] for finding in found)
    text = program.run("inspect", "data", *arguments).stdout
    assert "duplicate: 1" in text and f"{train}:9: '{{{{name}}}}' looks like something to be filled in" in text


def findings(tmp_path, rows, held=None, more=()):
    train = program.write_rows(tmp_path / "train.jsonl", rows)
    arguments = ["--model", BASE, f"datasets={train}", "template=alpaca", *more]
    if held:
        arguments.append(f"eval_datasets={program.write_rows(tmp_path / 'held.jsonl', held)}")
    found = json.loads(program.run("inspect", "data", *arguments, "--json").stdout)["findings"]
    return {(finding["kind"], finding["where"].replace(f"{tmp_path}/", "")): finding["what"] for finding in found}


def test_what_a_template_says_in_every_row_makes_no_two_rows_alike(tmp_path):
    rows = [{"instruction": f"Name thing {i}.", "output": f"Thing {i} it is."} for i in range(20)]
    assert findings(tmp_path, rows, held=[{"instruction": "Name thing 99.", "output": "Thing 99 it is."}]) == {}


def test_the_same_words_in_other_cases_and_the_same_question_with_another_answer(tmp_path):
    rows = [{"instruction": f"What does object number {i} of the cluster do?", "output": f"It keeps {i} copies."} for i in range(20)]
    rows.append({"instruction": "WHAT DOES OBJECT NUMBER 3 OF THE CLUSTER DO", "output": "it keeps 3 copies!"})
    rows.append({"instruction": rows[5]["instruction"], "output": "Nobody can say what that is good for."})
    held = [{"instruction": rows[7]["instruction"], "output": "Entirely different words stand here."}]
    found = findings(tmp_path, rows, held)
    assert {key: value.replace(f"{tmp_path}/", "") for key, value in found.items()} == {
        ("near_duplicate", "train.jsonl:21"): "the same words as train.jsonl:4",
        ("other_answer", "train.jsonl:22"): "the prompt of train.jsonl:6 with another answer",
        ("leakage", "held.jsonl:1"): "its prompt is trained on as train.jsonl:8, with another answer"}


@pytest.mark.parametrize("strange, words", [
    ("Das Café läuft, 1 °C, naïve “quotes” – здесь 中文 €", None),
    ("CafÃ© bleibt", "'Ã©'"), ("It isnâ€™t", "'â€™'"), ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Latin-1"), ("ä¸­文", "Latin-1"), ("锟斤拷", "wrong encoding"),
    ("a &lt;b&gt; c", "'&lt;', as text from a web page"), ("zero\u200bwidth", "zero-width"), ("soft\u00adhyphen", "soft hyphen"),
    ("bell\u0007", "0x07"), ("lost \ufffd", "U+FFFD"), ("mark \ufeff", "byte order mark"),
])
def test_encodings(tmp_path, strange, words):
    found = findings(tmp_path, [{"instruction": "Say it.", "output": strange + " and more"}])
    assert [what for (kind, _), what in found.items() if kind == "encoding" and words and words in what] or (words is None and not found)


def test_sources_out_of_balance(tmp_path):
    rows = [{"instruction": f"Question {i} about {i * i}", "output": " ".join(str(i * k) for k in range(30)), "source": "big"} for i in range(40)]
    rows.append({"instruction": "Only this one", "output": "Yes, one.", "source": "small"})
    found = findings(tmp_path, rows)
    assert ("imbalance", "source small") in found and ("imbalance", "source big") in found


def test_rows_cannot_write_to_the_terminal(tmp_path):
    train = program.write_rows(tmp_path / "train.jsonl", [{"instruction": "x\u001b[2J", "output": "y\u001b[31m red"}])
    shown = program.run("inspect", "data", "--model", BASE, f"datasets={train}", "template=alpaca").stdout
    assert "\x1b" not in shown and "y\\x1b[31m red" in shown
    if not shutil.which("script"):
        return
    command = f"{program.BIN} inspect data --model {BASE} datasets={train} template=alpaca"
    terminal = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={**{key: value for key, value in os.environ.items() if key != "NO_COLOR"}, "TERM": "xterm"})
    assert terminal.returncode == 0 and "\x1b[2J" not in terminal.stdout
    assert "\x1b[7my\\x1b[31m red</s>\x1b[0m" in terminal.stdout  # what is trained is reversed


def test_lint_of_pairs(tmp_path):
    def pair(i, **changes):
        words = "pods run on nodes and services give them one stable name inside the cluster network today".split()
        def answer(seed):
            return " " + " ".join(random.Random(seed).sample(words, len(words))) + "."
        return {"prompt": f"Question {i * 37}?", "chosen": answer(i), "rejected": answer(100 + i), **changes}
    rows = [pair(i) for i in range(6)]
    rows += [rows[1], pair(7, rejected=pair(7)["chosen"]), pair(8, rejected=pair(8)["chosen"] + " "),
             {**rows[2], "chosen": rows[2]["rejected"], "rejected": " something else that is long enough to be read"},
             pair(10, chosen=" Hello {{name}}, welcome to the cluster"), pair(11, rejected=" word" * 300)]
    train = program.write_rows(tmp_path / "train.jsonl", rows)
    held = program.write_rows(tmp_path / "eval.jsonl", [{**pair(20), "prompt": rows[3]["prompt"], "chosen": rows[3]["chosen"]}, pair(21)])
    arguments = ["--model", BASE, f"datasets={train}", f"eval_datasets={held}", "template=none", "stage=dpo", "max_length=200"]
    found = json.loads(program.run("inspect", "data", *arguments, "--json").stdout)["findings"]
    kinds = {(finding["kind"], finding["where"]) for finding in found}
    assert kinds >= {("duplicate", f"{train}:7"), ("same_answers", f"{train}:8"), ("same_answers", f"{train}:9"),
                     ("contradiction", f"{train}:3"), ("placeholder", f"{train}:11"), ("over_length", f"{train}:12"), ("leakage", f"{held}:1")}
    assert not any(where == f"{held}:2" for _, where in kinds)
    assert next(finding["what"] for finding in found if finding["kind"] == "over_length").startswith("rejected: ")
    refused = program.run("inspect", "data", "--model", BASE, "template=none", "stage=dpo",
                          f"datasets={program.write_rows(tmp_path / 'bad.jsonl', [*rows[:2], pair(3, chosen='')])}", expect=3)
    assert 'bad.jsonl:3: "chosen" is empty' in refused.stderr


def test_lint_of_labels(tmp_path):
    words = "pods run on nodes and services give them one stable name inside the cluster network today".split()
    rows = [{"prompt": f"Question {i * 37}?", "completion": " " + " ".join(random.Random(i).sample(words, len(words))), "label": i % 4 != 0}
            for i in range(12)]
    rows.append({**rows[1], "label": False})
    train = program.write_rows(tmp_path / "train.jsonl", rows)
    arguments = ["inspect", "data", "--model", BASE, f"datasets={train}", "template=none", "stage=kto"]
    found = {finding["kind"]: finding for finding in json.loads(program.run(*arguments, "--json").stdout)["findings"]}
    assert set(found) == {"contradiction", "label_imbalance"}
    assert found["contradiction"]["where"] == f"{train}:13" and f"desirable in {train}:2" in found["contradiction"]["what"]
    assert "9 desirable and 4 undesirable rows" in found["label_imbalance"]["what"]
    weighted = program.run(*arguments, "undesirable_weight=2", "--json").stdout
    assert "label_imbalance" not in {finding["kind"] for finding in json.loads(weighted)["findings"]}
