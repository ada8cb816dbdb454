"""finetune train from outside: files, settings, data handling, resume."""

import gzip
import json

import pytest
from program import metrics, run, snapshot, train, train_arguments, write_rows
from safetensors.numpy import load_file

STEP_KEYS = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens", "step_seconds",
             "tokens_per_second", "peak_memory_bytes"}


def test_output_folder(tmp_path, keys, model):
    out = train(tmp_path, **keys)
    names = {path.name for path in out.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "config.yaml", "metrics.jsonl", "tokenizer.model",
            "tokenizer_config.json", "checkpoint-3"} <= names
    assert (out / "tokenizer.model").read_bytes() == (model / "tokenizer.model").read_bytes()
    checkpoint = {path.name for path in (out / "checkpoint-3").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors",
            "trainer_state.json"} <= checkpoint
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == 4
    tensors = load_file(out / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    assert len(tensors) == 2 * 4 * 2  # layers, projections, A and B
    assert all(tensor.dtype == "float32" for tensor in tensors.values())


def test_metrics(tmp_path, keys):
    steps = metrics(train(tmp_path, **{**keys, "max_steps": 30}))
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert all(STEP_KEYS <= line.keys() for line in steps)
    first_epoch, last_epoch = ([line["loss"] for line in steps[part]] for part in (slice(3), slice(-3, None)))
    assert sum(last_epoch) < 0.9 * sum(first_epoch)
    assert all(line["peak_memory_bytes"] > 1 << 20 for line in steps)


def test_peak_memory_is_of_this_process(tmp_path, keys):
    """Not of the one that started it, as getrusage has it."""
    before = metrics(train(tmp_path / "before", **keys))[-1]["peak_memory_bytes"]
    ballast = bytearray(b"x") * (1 << 30)
    after = metrics(train(tmp_path / "after", **keys))[-1]["peak_memory_bytes"]
    del ballast
    assert after < before + (1 << 28)


def test_results_to_stdout_logs_to_stderr(tmp_path, keys):
    done = run(*train_arguments(tmp_path, **keys))
    assert "\r" not in done.stderr and "\x1b" not in done.stderr  # no terminal here
    quiet = run(*train_arguments(tmp_path / "quiet", **keys), "--quiet")
    assert len(quiet.stderr) < len(done.stderr)


def test_saved_config_can_be_used_again(tmp_path, keys):
    out = train(tmp_path, **keys)
    run("train", "--config", out / "config.yaml", f"output_dir={tmp_path / 'again'}")
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_command_line_alone_is_enough(tmp_path, keys):
    out = tmp_path / "out"
    run("train", *(f"{key}={value[0] if isinstance(value, list) else value}" for key, value in keys.items()),
        f"output_dir={out}", "dtype=float32")
    assert (out / "adapter_model.safetensors").exists()


def test_command_line_wins(tmp_path, keys):
    run(*train_arguments(tmp_path, **keys), "max_steps=1", "lr=1e-4")
    steps = metrics(tmp_path / "out")
    assert len(steps) == 1 and steps[0]["learning_rate"] <= 1e-4


def test_sections_are_flat_keys(tmp_path, keys):
    keys.pop("lora_rank")
    out = train(tmp_path, lora={"rank": 2}, **keys)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 2


def test_dry_run_writes_no_weights(tmp_path, keys):
    run(*train_arguments(tmp_path, **keys), "--dry-run")
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_existing_output_is_kept(tmp_path, keys):
    out = train(tmp_path, **keys)
    before = snapshot(out)
    done = run(*train_arguments(tmp_path, **keys), expect=2)
    assert "overwrite_output_dir" in done.stderr and "--resume" in done.stderr
    assert snapshot(out) == before
    train(tmp_path, overwrite_output_dir=True, **keys)


def test_show_config_names_origins(tmp_path, keys):
    done = run(*train_arguments(tmp_path, **keys), "--show-config", "seed=7")
    lines = {line.split(":")[0].strip(): line for line in done.stdout.splitlines() if ":" in line}
    assert "command line" in lines["seed"]
    assert "config.yaml:" in lines["lora_rank"]
    assert "default" in lines["weight_decay"]


@pytest.mark.parametrize("form", ["array", "gz", "blank lines"])
def test_forms_of_data(tmp_path, keys, rows_file, form):
    text = rows_file.read_text()
    if form == "array":
        file = tmp_path / "rows.json"
        file.write_text(json.dumps([json.loads(line) for line in text.splitlines()]))
    elif form == "gz":
        file = tmp_path / "rows.jsonl.gz"
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file = tmp_path / "rows.jsonl"
        file.write_text(text.replace("\n", "\n\n"))
    same = metrics(train(tmp_path / "one", **keys))
    other = metrics(train(tmp_path / "two", **{**keys, "datasets": [file]}))
    assert [line["loss"] for line in same] == [line["loss"] for line in other]


def test_instruction_rows(tmp_path, keys):
    from toy import instruction_rows
    data = write_rows(tmp_path / "rows.jsonl", instruction_rows(8))
    done = run(*train_arguments(tmp_path, **{**keys, "datasets": [data], "template": "alpaca"}))
    assert metrics(tmp_path / "out")[-1]["supervised_tokens"] > 0, done.stderr


def test_overlength_truncate_and_drop(tmp_path, keys):
    for choice in ("truncate", "drop"):
        done = run(*train_arguments(tmp_path / choice, max_length=72, overlength=choice, **keys))
        assert choice[:4] in (done.stderr + done.stdout).lower()


def test_eval_data_and_best_adapter(tmp_path, keys, rows_file):
    keys["learning_rate"] = 0.5  # so high that a later state is worse
    out = train(tmp_path, eval_datasets=[rows_file], eval_steps=1, save_steps=1, save_total_limit=10,
                **{**keys, "max_steps": 6})
    evaluations = metrics(out, "eval_loss")
    assert {"eval_loss", "eval_perplexity", "eval_token_accuracy"} <= evaluations[0].keys()
    best = min((line for line in evaluations if line["step"] > 0), key=lambda line: line["eval_loss"])["step"]
    assert ((out / "adapter_model.safetensors").read_bytes()
            == (out / f"checkpoint-{best}" / "adapter_model.safetensors").read_bytes())


def test_resume_continues(tmp_path, keys):
    whole = train(tmp_path / "whole", **keys)
    # max_steps belongs to the configuration, so the run is cut short by removing its later state.
    out = train(tmp_path / "part", save_steps=1, save_total_limit=10, **keys)
    for name in ("checkpoint-2", "checkpoint-3"):
        for file in (out / name).iterdir():
            file.unlink()
        (out / name).rmdir()
    (out / "adapter_model.safetensors").unlink()
    run(*train_arguments(tmp_path / "part", save_steps=1, save_total_limit=10, **keys), "--resume")
    assert (out / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()
    assert [line["step"] for line in metrics(out)] == [1, 2, 3]


def test_resume_without_checkpoint_starts(tmp_path, keys):
    done = run(*train_arguments(tmp_path, **keys), "--resume")
    assert "beginning" in done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_resume_refuses_changed_settings(tmp_path, keys):
    train(tmp_path, **keys)
    done = run(*train_arguments(tmp_path, **{**keys, "seed": 7}), "--resume", expect=2)
    assert "seed" in done.stderr and "--allow-changed" in done.stderr


def test_full_method_writes_a_model_folder(tmp_path, keys, rows_file):
    keys.pop("lora_rank")
    out = train(tmp_path, method="full", **keys)
    assert {"model.safetensors", "config.json", "tokenizer.model"} <= {path.name for path in out.iterdir()}
    run("eval", "--model", out, "--data", rows_file, "template=none")


def test_help_and_version():
    for verb in ("train", "merge", "eval", "generate"):
        help_text = run(verb, "--help").stdout.rstrip()
        assert help_text.splitlines()[-1].strip().lstrip("$ ").startswith(f"finetune {verb}")
    assert run("--version").stdout.strip()


@pytest.mark.parametrize("changes", [{}, {"lora_dropout": 0.2, "target_modules": "all-linear"}, {"method": "full"}], ids=str)
def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path, keys, changes):
    names = ["plain", "recomputed"]
    for name, value in zip(names, ["false", "true"]):
        train(tmp_path / name, **{**keys, "gradient_checkpointing": value, **changes})
    one, other = (metrics(tmp_path / name / "out") for name in names)
    assert [line["loss"] for line in one] == [line["loss"] for line in other]
    weights = next((tmp_path / "plain/out").glob("*model.safetensors")).name
    assert len({(tmp_path / name / "out" / weights).read_bytes() for name in names}) == 1
