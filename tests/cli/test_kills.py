"""Killed at any instant and resumed, a run ends with the same bytes: weights, optimizer, metrics, best adapter."""

import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import toy
from program import BIN, run, train_arguments, write_rows

KILLS = int(os.environ.get("FINETUNE_TEST_KILLS", "50"))
TIMES = {"step_seconds", "tokens_per_second", "peak_memory_bytes"}
ENVIRONMENT = {**os.environ, "GOMP_SPINCOUNT": "3000"}  # given, so that the program need not start itself again with it
WORKERS = os.cpu_count()

VARIANTS = {
    "adapter, best kept, accumulation": {"lora_dropout": 0.1, "gradient_accumulation_steps": 3, "eval_steps": 4},
    "full, momentum": {"method": "full", "lora_rank": None, "optim": "sgd", "momentum": 0.9, "learning_rate": 1e-3,
                       "gradient_accumulation_steps": 2},
    "eight-bit moments, early stopping": {"optim": "adamw_8bit", "eval_steps": 2, "early_stopping_patience": 3,
                                          "learning_rate": 0.3, "gradient_accumulation_steps": 2},
}


@pytest.fixture(scope="module")
def settings(model, tmp_path_factory):
    data = write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", toy.rows(24, seed=9))
    return {"model_name_or_path": model, "datasets": [data], "template": "none", "lora_rank": 4, "num_threads": 1,
            "learning_rate": 1e-2, "max_steps": 16, "per_device_train_batch_size": 2, "save_steps": 3}


def arguments_of(folder, settings, rows_file, changes):
    keys = {**settings, **changes}
    if "eval_steps" in keys:
        keys["eval_datasets"] = [rows_file]
    return [str(word) for word in train_arguments(folder, **{k: v for k, v in keys.items() if v is not None})]


def result(out):
    """What must not depend on interruptions; the times in metrics.jsonl may."""
    last = max(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = {f"{path.parent.name}/{path.name}": path.read_bytes()
             for folder in (out, last) for path in folder.iterdir()
             if path.suffix in (".safetensors", ".json") and path.name != "report.json"}  # which tells times
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return files, [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def start(arguments, **environment):
    return subprocess.Popen([BIN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env={**ENVIRONMENT, **environment})


def finish(arguments):
    process = start([*arguments, "--resume"])
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text.decode()


@pytest.fixture(scope="module")
def whole(settings, rows_file, tmp_path_factory):
    """Variant -> its arguments' changes, the result of a run that nothing interrupts, and how long it takes."""
    results = {}
    for name, changes in VARIANTS.items():
        folder = tmp_path_factory.mktemp("whole")
        began = time.monotonic()
        finish(arguments_of(folder, settings, rows_file, changes))
        results[name] = changes, result(folder / "out"), time.monotonic() - began
    return results


def test_random_kills(tmp_path, settings, rows_file, whole):
    """At least FINETUNE_TEST_KILLS (50) SIGKILLs at random moments, six in a row on one folder, then to the end."""
    seed = int(os.environ.get("FINETUNE_TEST_SEED", time.time_ns() % 1_000_000))
    names = list(VARIANTS)

    def chain(number):
        rng = random.Random(seed * 1000 + number)
        name = names[number % len(names)]
        changes, expected, seconds = whole[name]
        folder = tmp_path / str(number)
        arguments = arguments_of(folder, settings, rows_file, changes)
        kills = 0
        for _ in range(6):
            process = start([*arguments, "--resume"])
            time.sleep(rng.uniform(0.2, 1.0) * seconds)
            process.kill()
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        finish(arguments)
        assert result(folder / "out") == expected, f"FINETUNE_TEST_SEED={seed}, chain {number}: {name}"
        shutil.rmtree(folder)
        return kills

    killed = number = 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        while killed < KILLS:
            killed += sum(pool.map(chain, range(number, number + WORKERS)))
            number += WORKERS
            assert number < KILLS + 20, "the program ends before it can be killed"
    print(f"{killed} kills in {number} chains")


SHORT = {"max_steps": 2, "save_steps": 1, "save_total_limit": 1, "eval_steps": 2, "gradient_accumulation_steps": 2}


def outcome_of_fault(folder, arguments, fault):
    """Runs with one fault, then to the end; returns the result and how the first run ended."""
    process = start(arguments, FINETUNE_WRITE_FAULT=fault)
    _, text = process.communicate(timeout=300)
    assert process.returncode in (0, 5, -signal.SIGKILL), text.decode()
    if process.returncode != 0:
        finish(arguments)
    return result(folder / "out"), process.returncode, text.decode()


def at_every_change(tmp_path, settings, rows_file, fault, check):
    """`check(point, outcome)` for a fault at the first, second ... change of the disk, until a run has fewer."""
    folder = tmp_path / "whole"
    finish(arguments_of(folder, settings, rows_file, SHORT))
    expected = result(folder / "out")

    def one(point):
        place = tmp_path / str(point)
        found, code, text = outcome_of_fault(place, arguments_of(place, settings, rows_file, SHORT),
                                             fault.format(point))
        assert found == expected, f"{fault.format(point)}: {text}"
        shutil.rmtree(place)
        return check(point, code, text)

    points = 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        while all(pool.map(one, range(points + 1, points + 11))):
            points += 10
    assert points >= 50
    print(f"{points} changes of the disk")


def test_kill_before_every_change_of_the_disk(tmp_path, settings, rows_file):
    at_every_change(tmp_path, settings, rows_file, "kill@{}", lambda point, code, text: code == -signal.SIGKILL)


def test_full_disk_at_every_change_of_the_disk(tmp_path, settings, rows_file):
    """Refused once: before training it ends with exit code 5, in training it waits and goes on."""
    def check(point, code, text):
        assert code == 0 or "No space left" in text, text
        return "No space left" in text

    at_every_change(tmp_path, {**settings, "disk_retry_seconds": 10}, rows_file, "28@{}", check)


def test_damaged_checkpoints_are_passed_over(tmp_path, settings, rows_file):
    """Every file of the newest checkpoint, with one bit turned, cut short, or gone."""
    arguments = arguments_of(tmp_path, settings, rows_file, {"save_total_limit": 2})
    finish(arguments)
    out = tmp_path / "out"
    expected = result(out)
    kept = shutil.copytree(out, tmp_path / "kept")
    names = sorted(path.name for path in (kept / "checkpoint-16").iterdir())
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "trainer_state.json"} == set(names)
    for name in names:
        for damage in ("bit", "cut", "gone"):
            if (name, damage) == ("trainer_state.json", "gone"):
                continue  # then it is not complete, which the kills test
            shutil.rmtree(out)
            shutil.copytree(kept, out)
            file = out / "checkpoint-16" / name
            content = bytearray(file.read_bytes())
            if damage == "bit":
                content[len(content) // 2] ^= 1
            file.unlink()
            if damage != "gone":
                file.write_bytes(content[:len(content) // 2] if damage == "cut" else content)
            done = run(*arguments, "--resume")
            assert "checkpoint-16" in done.stderr and "cannot be used" in done.stderr, (name, damage)
            assert "continuing after step 15" in done.stderr, done.stderr
            assert (out / "damaged-checkpoint-16" / name).exists() == (damage != "gone")
            assert result(out) == expected, (name, damage)


def test_the_only_checkpoint_damaged(tmp_path, settings, rows_file):
    arguments = arguments_of(tmp_path, settings, rows_file, {"save_total_limit": 1})
    finish(arguments)
    expected = result(tmp_path / "out")
    (tmp_path / "out/checkpoint-16/optimizer.safetensors").write_bytes(b"")
    assert "starting from the beginning" in run(*arguments, "--resume").stderr
    assert result(tmp_path / "out") == expected


@pytest.mark.parametrize("key, value", [
    ("seed", 7), ("learning_rate", 0.5), ("optim", "lion"), ("max_steps", 99), ("lora_rank", 8), ("shuffle", False),
    ("gradient_accumulation_steps", 4), ("max_length", 100), ("template", "alpaca")])
def test_resume_names_the_changed_key(tmp_path, settings, rows_file, key, value):
    finish(arguments_of(tmp_path, {**settings, "max_steps": 2}, rows_file, {}))
    before = result(tmp_path / "out")
    done = run(*arguments_of(tmp_path, {**settings, "max_steps": 2, key: value}, rows_file, {}), "--resume", expect=2)
    assert f"\n{key}: was " in done.stderr and "--allow-changed" in done.stderr
    assert result(tmp_path / "out") == before


def test_resume_names_changed_data_and_model(tmp_path, settings, model, rows_file):
    data = shutil.copy(settings["datasets"][0], tmp_path / "rows.jsonl")
    base = shutil.copytree(model, tmp_path / "base")
    keys = {**settings, "max_steps": 2, "datasets": [data], "model_name_or_path": base}
    arguments = arguments_of(tmp_path, keys, rows_file, {})
    finish(arguments)
    write_rows(tmp_path / "rows.jsonl", toy.rows(24, seed=10))
    assert "content of datasets" in run(*arguments, "--resume", expect=2).stderr
    done = run(*arguments, "--resume", "--allow-changed")
    assert "continuing with changed settings" in done.stderr and "content of datasets" in done.stderr
    toy.make_model(base, seed=5)
    assert "content of model_name_or_path" in run(*arguments, "--resume", expect=2).stderr


def test_free_keys_may_change(tmp_path, settings, rows_file):
    arguments = arguments_of(tmp_path, {**settings, "max_steps": 2}, rows_file, {})
    finish(arguments)
    run(*arguments, "--resume", "save_total_limit=5", "disk_retry_seconds=7", "interrupt_grace_seconds=9")


def test_four_trainings_at_once(tmp_path, settings, rows_file):
    """On one machine, each into its own folder: none disturbs another."""
    arguments = [arguments_of(tmp_path / str(i), settings, rows_file, {"seed": i % 2}) for i in range(4)]
    processes = [start(words) for words in arguments]
    for process in processes:
        process.communicate(timeout=300)
        assert process.returncode == 0
    results = [result(tmp_path / str(i) / "out")[1] for i in range(4)]
    assert results[0] == results[2] and results[1] == results[3] and results[0] != results[1]


def test_two_runs_in_one_folder(tmp_path, settings, rows_file):
    arguments = arguments_of(tmp_path, {**settings, "max_steps": 100_000, "save_steps": 100_000}, rows_file, {})
    first = start(arguments)
    while not (tmp_path / "out" / "metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.01)
    for more in ([], ["--resume"], ["overwrite_output_dir=true"]):
        done = run(*arguments, *more, expect=2 if not more else 5)
        assert "another process" in done.stderr or "holds a run" in done.stderr
    first.kill()
    first.communicate()
    run(*arguments, "overwrite_output_dir=true", "max_steps=1")
