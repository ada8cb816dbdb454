"""`finetune plan` beside what a run then takes."""

import json

import program
import pytest
import toy
from safetensors.numpy import save_file

BASE = program.SOURCE_DIR / "data/tiny-base"
# The shape of stories15M: hidden, layers, heads, key heads, MLP, vocabulary.
SHAPE = {"hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6,
         "intermediate_size": 768, "vocab_size": 32000, "tie_word_embeddings": True}
TOLERANCE = 0.10  # of the peak resident set
STEPS = 3  # what the allocator keeps grows for the first few


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_tokenizer(folder)
    config = toy.llama_config(**SHAPE)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(toy.llama_tensors(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def plan(*arguments):
    return json.loads(program.run("plan", "--json", *arguments).stdout)


@pytest.mark.parametrize("settings", [
    {}, {"dtype": "bfloat16"}, {"target_modules": "all-linear", "gradient_checkpointing": True}, {"quantization": "nf4"},
    {"method": "full"}, {"method": "full", "optim": "adamw_8bit"}, {"method": "adapter"}],
    ids=["lora", "bfloat16", "recompute", "nf4", "full", "full_8bit", "adapter"])
def test_peak_memory(tmp_path, model, settings):
    data = program.write_rows(tmp_path / "rows.jsonl", toy.rows(8, low=24, high=48))
    keys = {"model": model, "datasets": str(data), "template": "none", "max_steps": STEPS, "save_steps": STEPS,
            "per_device_train_batch_size": 4,
            "num_threads": 1,  # with more, the allocator does not do the same every time
            **settings}
    arguments = program.train_arguments(tmp_path, **keys)
    planned = plan(*arguments[1:])
    program.run(*arguments)
    measured = program.metrics(tmp_path / "out")[-1]["peak_memory_bytes"]
    assert planned["peak_memory_bytes"] == pytest.approx(measured, rel=TOLERANCE), planned["components"]
    assert planned["peak_memory_bytes"] == sum(planned["components"].values())
    assert planned["steps"] == STEPS and planned["fits"] and planned["advice"] == []
    assert 0 < planned["step_seconds"] < planned["total_seconds"]
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert size <= planned["disk_bytes"]


def test_counts_rows_over_length(tmp_path):
    data = program.write_rows(tmp_path / "rows.jsonl", [{"prompt": "What is a pod?", "completion": " A pod." * i} for i in (1, 2, 30)])
    arguments = [f"model={BASE}", f"datasets={data}", "template=none", "max_length=32", "max_steps=1"]
    planned = plan(*arguments)
    assert planned["over_length"] == 1 and planned["longest"] > 32 and planned["largest_batch_tokens"] <= 32 * 3
    text = program.run("plan", *arguments).stdout
    assert "1 are longer than max_length 32" in text and "it fits" in text


def test_dry_run_plans_and_makes_a_step(tmp_path):
    data = program.write_rows(tmp_path / "rows.jsonl", toy.rows(4))
    done = program.run("train", "--dry-run", f"model={BASE}", f"datasets={data}", "template=none", f"output_dir={tmp_path / 'out'}")
    assert "verdict  it fits" in done.stdout and "a step was made" in done.stderr and "step 1/1" in done.stderr
    assert not (tmp_path / "out").exists()
