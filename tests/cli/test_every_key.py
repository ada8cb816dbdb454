"""Every configuration key has a reader: a row here changes it alone and sees another result. A key without a row fails."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import time

import pytest
import toy
from program import BIN, SOURCE_DIR, write_config, write_rows
from safetensors.numpy import load_file, save_file

TIMES = {"step_seconds", "tokens_per_second", "peak_memory_bytes"}
SCHEMA = json.loads((SOURCE_DIR / "docs/config.schema.json").read_text())["properties"]
CANONICAL = re.findall(r"^\| `(\w+)` \|", (SOURCE_DIR / "docs/config.md").read_text(), re.MULTILINE)
ADAPTER = {"method": "adapter", "lora_rank": None}
FULL = {"method": "full", "lora_rank": None, "learning_rate": 1e-3}
DPO = {"stage": "dpo", "datasets": ["PAIRS"]}
GRPO = {"stage": "grpo", "reward_funcs": ["length:3", "regex:[^a]*"], "num_generations": 4, "max_completion_length": 8}
AGAIN = {**GRPO, "num_iterations": 2, "learning_rate": 0.1, "lr_scheduler_type": "constant"}  # ratios move within a round
KTO = {"stage": "kto", "datasets": ["LABELLED"]}
EVAL = {"eval_datasets": ["EVAL"], "eval_steps": 1}
# What the words in capitals stand for is made by the fixture `paths`.

# key -> (its other value, keys that both runs have besides the usual ones)
ROWS = {
    "model_name_or_path": ("OTHER_MODEL", {}),
    "method": ("ia3", {"lora_rank": None}),
    "stage": ("dpo", {}),
    "quantization": ("nf4", {}),
    "double_quant": (False, {"quantization": "nf4"}),
    "dtype": ("bfloat16", {}),
    "device": ("cuda", {}),
    "allow_extra_tensors": (True, {"model_name_or_path": "EXTRA_MODEL"}),
    "lora_rank": (3, {}),
    "lora_alpha": (5, {}),
    "lora_dropout": (0.5, {}),
    "target_modules": (["q_proj"], {}),
    "exclude_modules": (["q_proj"], {}),
    "layers_to_transform": ([1], {}),
    "rank_pattern": ({"q_proj": 2}, {}),
    "alpha_pattern": ({"q_proj": 2}, {}),
    "modules_to_save": (["lm_head"], {}),
    "use_rslora": (True, {}),
    "use_dora": (True, {}),
    "init_lora_weights": ("gaussian", {}),
    "stack_on_adapter": ("ADAPTER", {}),
    "loraplus_lr_ratio": (8, {}),
    "trainable_modules": (".*q_proj.*", FULL),
    "freeze_trainable_layers": (1, FULL),
    "pure_bf16": (True, FULL),
    "adapter_size": (8, ADAPTER),
    "adapter_activation": ("relu", ADAPTER),
    "adapter_placement": ("houlsby", ADAPTER),
    "adapter_scaling": (3, ADAPTER),
    "adapter_dropout": (0.5, ADAPTER),
    "feedforward_modules": (["v_proj"], {"method": "ia3", "lora_rank": None, "target_modules": ["k_proj", "v_proj"]}),
    "datasets": (["EVAL"], {}),
    "eval_datasets": (["EVAL"], {}),
    "eval_split": (0.5, {}),
    "template": ("alpaca", {}),
    "system_prompt": ("be kind", {"template": "alpaca", "datasets": ["CHAT"]}),
    "train_on_prompt": (True, {}),
    "max_length": (20, {"overlength": "truncate"}),
    "overlength": ("drop", {"max_length": 80, "max_steps": 9}),
    "shuffle": (False, {}),
    "seed": (7, {}),
    "max_row_bytes": (20, {}),
    "prefix_sharing": ("off", {}),
    "num_train_epochs": (2, {"max_steps": None}),
    "max_steps": (2, {}),
    "per_device_train_batch_size": (3, {}),
    "tokens_per_batch": (60, {"per_device_train_batch_size": None}),
    "per_device_eval_batch_size": (1, EVAL),
    "gradient_accumulation_steps": (2, {}),
    "learning_rate": (1e-3, {}),
    "lr_scheduler_type": ("constant", {}),
    "warmup_ratio": (0.5, {}),
    "warmup_steps": (2, {}),
    "min_lr_ratio": (0.5, {"lr_scheduler_type": "cosine_with_min_lr"}),
    "wsd_decay_ratio": (0.8, {"lr_scheduler_type": "wsd"}),
    "optim": ("lion", {}),
    "weight_decay": (0.5, {}),
    "adam_beta1": (0.5, {}),
    "adam_beta2": (0.5, {}),
    "adam_epsilon": (0.1, {}),
    "momentum": (0.9, {"optim": "sgd"}),
    "optimizer_in_backward": (True, {"max_grad_norm": 0}),
    "max_grad_norm": (0.01, {"optim": "sgd"}),
    "gradient_checkpointing": (True, {}),
    "neftune_noise_alpha": (5, {}),
    "label_smoothing": (0.3, {}),
    "loss_type": ("hinge", DPO),
    "beta": (0.5, DPO),
    "simpo_gamma": (2, {**DPO, "stage": "simpo"}),
    "reference_adapter": ("ADAPTER", DPO),
    "reward_funcs": (["length:3", "regex:[^e]*"], GRPO),
    "reward_weights": ([1, 3], GRPO),
    "num_generations": (5, GRPO),
    "max_completion_length": (6, GRPO),
    "temperature": (0.5, GRPO),
    "top_k": (3, GRPO),
    "top_p": (0.5, GRPO),
    "num_iterations": (2, GRPO),
    "epsilon": (0.001, {**AGAIN, "epsilon_high": 0.2}),
    "epsilon_high": (0.001, AGAIN),
    "grpo_loss_type": ("dr_grpo", {**GRPO, "max_completion_length": 90}),  # answers of different lengths
    "scale_rewards": ("none", GRPO),
    "use_weighting": (True, DPO),
    "desirable_weight": (2, KTO),
    "undesirable_weight": (2, KTO),
    "center_rewards_coefficient": (0.5, {**DPO, "stage": "reward"}),
    "eval_steps": (1, {**EVAL, "eval_steps": None}),
    "save_steps": (1, {}),
    "logging_steps": (2, {}),
    "eval_samples": (1, EVAL),
    "tensorboard": (False, {}),
    "prometheus_file": ("GAUGES", {}),
    "save_total_limit": (1, {"save_steps": 1}),
    "load_best_model_at_end": (False, {**EVAL, "learning_rate": 0.5}),
    "early_stopping_patience": (1, {**EVAL, "learning_rate": 0.5}),
    "output_dir": ("ELSEWHERE", {}),
    "overwrite_output_dir": (True, {"output_dir": "USED"}),
    "disk_retry_seconds": (0, {}),
    "on_nonfinite": ("skip", {"learning_rate": 1e30, "optim": "sgd", "max_grad_norm": 0,
                              "lr_scheduler_type": "constant", "max_steps": 12}),
    "interrupt_grace_seconds": (1, {}),
    "num_threads": (2, {}),
    "terms": ("TERMS", {}),
    "format_check": ("[a-z]+", {}),
    "scorer": ("cat", {}),
}

# Keys whose reader other tests watch, because the result must not change with them or needs more than a run.
ELSEWHERE = {
    "per_device_eval_batch_size": "test_evaluation_does_not_depend_on_its_batch_size",
    "optimizer_in_backward": "tests/cli/test_optimizers.py: peak memory",
    "gradient_checkpointing": "tests/cli/test_train.py, tests/nn/recompute_test.cpp: peak memory",
    "prefix_sharing": "tests/peers/test_prefix_sharing.py: the result is the same by definition",
    "disk_retry_seconds": "tests/cli/test_interrupts.py",
    "interrupt_grace_seconds": "tests/cli/test_interrupts.py",
    "num_threads": "test_threads_are_as_many_as_asked_for",
    "terms": "tests/cli/test_eval_scores.py",
    "format_check": "tests/cli/test_eval_scores.py",
    "scorer": "tests/cli/test_eval_scores.py",
}


def test_every_key_has_a_row():
    keys = {key for key in CANONICAL if key in SCHEMA}
    assert len(keys) > 70
    assert keys - ROWS.keys() == set()
    assert ROWS.keys() - keys == set()
    assert ELSEWHERE.keys() <= ROWS.keys()


@pytest.fixture(scope="module")
def paths(tmp_path_factory, model, rows_file, adapter):
    folder = tmp_path_factory.mktemp("inputs")
    extra = toy.make_model(folder / "extra")
    tensors = load_file(extra / "model.safetensors")
    save_file({**tensors, "model.surprise": tensors["model.norm.weight"].copy()}, extra / "model.safetensors")
    used = folder / "used"
    used.mkdir()
    (used / "adapter_config.json").write_text("{}")
    return {"MODEL": model, "OTHER_MODEL": toy.make_model(folder / "other", seed=4), "EXTRA_MODEL": extra,
            "ADAPTER": adapter, "DATA": rows_file, "EVAL": write_rows(folder / "eval.jsonl", toy.rows(4, seed=8)),
            "CHAT": write_rows(folder / "chat.jsonl", toy.instruction_rows(8)), "USED": used,
            "PAIRS": write_rows(folder / "pairs.jsonl", [
                {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
                for row, other in zip(toy.rows(6, seed=8), toy.rows(6, seed=9), strict=True)]),
            "LABELLED": write_rows(folder / "labelled.jsonl", [{**row, "label": i % 2 == 0} for i, row in enumerate(toy.rows(6, seed=8))]),
            "ELSEWHERE": folder / "elsewhere", "GAUGES": folder / "gauges.prom"}


def observe(folder, keys):
    """All that a run gives, without times and without its own folder's name."""
    folder.mkdir()
    keys = {key: value for key, value in keys.items() if value is not None}
    out = folder / "out"
    keys.setdefault("output_dir", str(out))
    done = subprocess.run([BIN, "train", "--config", str(write_config(folder / "config.yaml", **keys))], cwd=folder,
                          capture_output=True, text=True, env={**os.environ, "GOMP_SPINCOUNT": "3000"}, timeout=300)
    seen = {"code": done.returncode, "out is used": out.exists()}
    if done.returncode not in (0, 6):
        seen["error"] = done.stderr.replace(str(folder), "")
    for path in sorted(out.rglob("*.safetensors")) if out.exists() else []:
        seen[str(path.relative_to(out))] = path.read_bytes()
    seen["tensorboard is there"] = (out / "tensorboard").exists()
    if (out / "samples.jsonl").exists():
        seen["samples"] = (out / "samples.jsonl").read_text()
    if "prometheus_file" in keys:
        seen["gauges"] = [line for line in pathlib.Path(keys["prometheus_file"]).read_text().splitlines() if "# TYPE" in line]
    if (out / "metrics.jsonl").exists():
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        seen["metrics"] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return seen


@pytest.fixture(scope="module")
def observed(paths, tmp_path_factory):
    """(key, "before" or "after") -> what the run showed, for every row of the table."""
    usual = {"model_name_or_path": "MODEL", "datasets": ["DATA"], "template": "none", "dtype": "float32",
             "device": "cpu", "lora_rank": 4, "max_steps": 3, "per_device_train_batch_size": 2, "num_threads": 1,
             "learning_rate": 1e-2}

    def filled(value):
        if isinstance(value, list):
            return [filled(item) for item in value]
        return str(paths[value]) if isinstance(value, str) and value in paths else value

    folder = tmp_path_factory.mktemp("runs")
    jobs, names = {}, {}
    for key, (value, more) in ROWS.items():
        before = {**usual, **more}
        for when, keys in (("before", before), ("after", {**before, key: value})):
            keys = {name: filled(item) for name, item in keys.items()}
            if when == "before" and key not in more and key not in usual:
                keys.pop(key, None)
            names[key, when] = json.dumps(keys, sort_keys=True)
            jobs[names[key, when]] = keys  # many rows share their first run
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = dict(zip(jobs, pool.map(observe, [folder / str(i) for i in range(len(jobs))], jobs.values())))
    return {place: seen[name] for place, name in names.items()}


@pytest.mark.parametrize("key", [key for key in ROWS if key not in ELSEWHERE])
def test_changing_it_changes_the_result(key, observed):
    before, after = observed[key, "before"], observed[key, "after"]
    assert before != after
    if key not in ("allow_extra_tensors", "overlength", "overwrite_output_dir", "on_nonfinite"):
        assert before["code"] == 0, before


def test_evaluation_does_not_depend_on_its_batch_size(observed):
    one, other = (observed["per_device_eval_batch_size", when]["metrics"] for when in ("before", "after"))
    losses = [[line["eval_loss"] for line in lines if "eval_loss" in line] for lines in (one, other)]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_threads_are_as_many_as_asked_for(tmp_path, paths):
    counts = {}
    for threads in (1, 3):
        out = tmp_path / str(threads)
        config = write_config(tmp_path / "config.yaml", model_name_or_path=paths["MODEL"], datasets=[paths["DATA"]],
                              template="none", num_threads=threads, max_steps=1_000_000, output_dir=out)
        process = subprocess.Popen([BIN, "train", "--config", config], stderr=subprocess.DEVNULL,
                                   env={**os.environ, "GOMP_SPINCOUNT": "3000"})
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert process.poll() is None
            time.sleep(0.02)
        counts[threads] = len(os.listdir(f"/proc/{process.pid}/task"))
        process.kill()
        process.wait()
    assert counts[3] > counts[1]
