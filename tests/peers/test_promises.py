"""The promises that a run keeps: same bytes, any split, no leak between rows, adapter = merged, SIGKILL."""

import random
import shutil
import signal
import subprocess
import time

import peer
import pytest
import toy
import torch
from program import BIN, predictions, run, snapshot, train, train_arguments, write_rows
from safetensors.torch import load_file

WEIGHTS = ["adapter_model.safetensors", "adapter_config.json"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", toy.rows(24, seed=9))


@pytest.fixture
def settings(model, data):
    return {"model_name_or_path": model, "datasets": [data], "template": "none", "lora_rank": 4, "lora_dropout": 0.1,
            "learning_rate": 1e-2, "max_steps": 12, "per_device_train_batch_size": 4}


def difference(left, right):
    """Largest relative difference of norms over the tensors of two files."""
    left, right = load_file(left / WEIGHTS[0]), load_file(right / WEIGHTS[0])
    assert left.keys() == right.keys()
    return max(((left[name] - right[name]).norm() / left[name].norm()).item() for name in left)


def test_same_bytes_twice(tmp_path, settings):
    first = train(tmp_path / "1", **settings)
    second = train(tmp_path / "2", **settings)
    assert snapshot(first, WEIGHTS) == snapshot(second, WEIGHTS)
    third = train(tmp_path / "3", **{**settings, "seed": 43})
    assert snapshot(first, WEIGHTS) != snapshot(third, WEIGHTS)


def test_any_split_of_a_step_gives_the_same_gradient(tmp_path, model, settings):
    """One step of plain descent from an adapter: 8 rows at once, 8 of 1, 4 of 2, and 2 of 4."""
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    settings.pop("lora_rank")
    results = {}
    for batch in (8, 1, 2, 4):
        results[batch] = train(tmp_path / str(batch), **{
            **settings, "init_lora_weights": adapter, "lora_dropout": 0, "shuffle": False, "optim": "sgd",
            "learning_rate": 1000.0, "max_grad_norm": 0, "max_steps": 1, "lr_scheduler_type": "constant",
            "per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch})
    for batch in (1, 2, 4):
        assert difference(results[8], results[batch]) < 1e-5, batch


def test_a_row_alone_is_the_row_in_company(tmp_path, model, data):
    together = predictions(tmp_path, model, data, "per_device_eval_batch_size=24")["base"]
    alone = predictions(tmp_path, model, data, "per_device_eval_batch_size=1")["base"]
    assert [row["nll"] for row in together] == pytest.approx([row["nll"] for row in alone], rel=1e-6)
    # The same row between other neighbours, and by itself in a file.
    rows = toy.rows(24, seed=9)
    single = predictions(tmp_path, model, write_rows(tmp_path / "single.jsonl", rows[7:8]))["base"]
    assert single[0]["nll"] == pytest.approx(together[7]["nll"], rel=1e-6)


def test_the_adapter_is_the_merged_model(tmp_path, model, data, settings):
    adapter = train(tmp_path, **settings)
    run("merge", "--model", model, "--adapter", adapter, "--output", tmp_path / "merged")
    live = predictions(tmp_path, model, data, adapter=adapter)["adapter"]
    merged = predictions(tmp_path, tmp_path / "merged", data)["base"]
    assert [row["nll"] for row in live] == pytest.approx([row["nll"] for row in merged], rel=1e-5)


def test_a_zero_adapter_is_the_base(tmp_path, model, data):
    """B = 0 at the start: an adapter that was never trained changes nothing."""
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    tensors = load_file(adapter / WEIGHTS[0])
    from safetensors.torch import save_file
    save_file({name: torch.zeros_like(tensor) if "lora_B" in name else tensor for name, tensor in tensors.items()},
              adapter / WEIGHTS[0], metadata={"format": "pt"})
    rows = predictions(tmp_path, model, data, adapter=adapter)
    assert [row["nll"] for row in rows["adapter"]] == pytest.approx([row["nll"] for row in rows["base"]], rel=1e-6)


def kill_once(arguments, delay):
    """Starts the program and kills it after `delay` seconds; False when it was done before."""
    process = subprocess.Popen([BIN, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_killed_and_resumed_is_never_interrupted(tmp_path, settings, rows_file):
    """SIGKILL at random moments, again and again, then --resume to the end: the same bytes."""
    settings = {**settings, "eval_datasets": [rows_file], "eval_steps": 5, "save_steps": 3, "max_steps": 60}
    began = time.monotonic()
    whole = train(tmp_path / "whole", **settings)
    seconds = time.monotonic() - began
    rng = random.Random(time.time_ns())
    for attempt in range(3):
        folder = tmp_path / f"killed{attempt}"
        arguments = [*train_arguments(folder, **settings), "--resume"]
        moments = [rng.uniform(0.3, 1.0) * seconds for _ in range(3)]
        killed = [kill_once(arguments, moment) for moment in moments]
        run(*arguments)
        assert snapshot(folder / "out", WEIGHTS) == snapshot(whole, WEIGHTS), f"{moments} {killed}"
        shutil.rmtree(folder)
