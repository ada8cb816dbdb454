"""`finetune init` and `finetune doctor`."""

import json
import subprocess

import program
import pytest

BASE = program.SOURCE_DIR / "data/tiny-base"


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "adapter"])
def test_init_writes_a_configuration_that_runs(tmp_path, method):
    data = program.write_rows(tmp_path / "rows.jsonl", [{"prompt": f"What is {i}?", "completion": " A number."} for i in range(40)])
    text = program.run("init", "--method", method, "--model", BASE, "--data", data).stdout
    assert "40 rows" in text and "per_device_train_batch_size: 2" in text and "max_length: 64" in text
    (tmp_path / "mine.yaml").write_text(text)
    program.run("train", "--config", tmp_path / "mine.yaml", "max_steps=1", cwd=tmp_path)
    assert (tmp_path / "runs" / method / "report.html").exists()


PAIR = {"chosen": "A number.", "rejected": "I do not know, but it is late."}


@pytest.mark.parametrize(("stage", "row", "metric"), [
    ("dpo", PAIR, "rewards/accuracies"), ("orpo", PAIR, "rewards/accuracies"), ("reward", PAIR, "accuracy"),
    ("kto", {"completion": "A number.", "label": True}, "rewards/chosen"), ("grpo", {"completion": " A number."}, "reward")])
def test_init_for_stages(tmp_path, stage, row, metric):
    rows = [{"prompt": f"What is {i}?", **row, **({"label": i % 2 == 0} if "label" in row else {})} for i in range(40)]
    data = program.write_rows(tmp_path / "rows.jsonl", rows)
    text = program.run("init", "--method", stage, "--model", BASE, "--data", data).stdout
    assert f"stage: {stage} " in text and "40 rows" in text
    if stage == "grpo":  # room for answers is no part of the rows
        plain = program.run("init", "--model", BASE, "--data", data).stdout
        assert [line for line in plain.splitlines() if line.startswith("# 40 rows")][0] in text
    (tmp_path / "mine.yaml").write_text(text)
    program.run("train", "--config", tmp_path / "mine.yaml", "max_steps=1", cwd=tmp_path)
    assert f'"{metric}"' in (tmp_path / "runs" / stage / "metrics.jsonl").read_text()


def test_init_offers_every_stage_that_trains():
    stages = json.loads((program.SOURCE_DIR / "docs/config.schema.json").read_text())["properties"]["stage"]["enum"]
    for stage in stages:
        trains = "is not in this version" not in program.run(
            "train", f"stage={stage}", "model_name_or_path=none", "datasets=none", expect=None).stderr
        done = program.run("init", "--method", stage, expect=None)
        assert done.returncode == (0 if trains and stage != "sft" else 2), stage


def test_init_without_facts_and_with_wrong_ones():
    assert "model_name_or_path: path/to/model" in program.run("init").stdout
    assert "did you mean qlora" in program.run("init", "--method", "qlor", expect=2).stderr
    assert "give --model too" in program.run("init", "--data", "x.jsonl", expect=2).stderr


def test_doctor():
    report = json.loads(program.run("doctor", "--json").stdout)
    assert report["cores"] >= 1 and report["float32_gflops"] > 0
    assert 0 < report["available_memory_bytes"] <= report["memory_bytes"]
    assert str(report["cores"]) + " cores usable" in program.run("doctor").stdout


def test_no_network_is_asked_for(tmp_path, keys):
    """A machine without any network trains the same bytes."""
    arguments = [program.train_arguments(tmp_path / name, **keys) for name in ("without", "with")]
    done = subprocess.run(["unshare", "-n", program.BIN, *map(str, arguments[0])], capture_output=True, text=True, timeout=300)
    if "unshare" in done.stderr:
        pytest.skip("network namespaces are not permitted here")
    assert done.returncode == 0, done.stderr
    program.run(*arguments[1])
    assert program.snapshot(tmp_path / "without/out", ["adapter_model.safetensors"]) == \
        program.snapshot(tmp_path / "with/out", ["adapter_model.safetensors"])
