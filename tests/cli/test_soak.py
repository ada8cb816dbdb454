"""Long runs, much data, and several at once: nothing grows, nothing is mixed up. scripts/soak runs the long form."""

import json
import os
import pathlib
import statistics
import subprocess
import time

import pytest
import toy
from program import BIN, metrics, run, train_arguments, write_rows
from test_kills import ENVIRONMENT, result

STEPS = int(os.environ.get("FINETUNE_SOAK_STEPS", "10000"))
ROWS = int(os.environ.get("FINETUNE_SOAK_ROWS", "100000"))
# What a row of 10 tokens may take while it is read, and while it is trained on: see docs/reliability.md.
MOST_BYTES_A_ROW = 350
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return toy.make_model(tmp_path_factory.mktemp("small") / "model", hidden_size=16, intermediate_size=16,
                          num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)


def last_line(path):
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        lines = file.read().split(b"\n")
    return json.loads(lines[-2]) if len(lines) > 2 else {}


def watched(arguments, out, every=0.2, cache=None):
    """Runs the program; returns samples of (step, resident bytes, open files, seconds of the processor)."""
    environment = {**ENVIRONMENT, **({"FINETUNE_CACHE_DIR": str(cache)} if cache else {})}
    samples = []
    with open(out.parent / "log", "w+") as log:
        process = subprocess.Popen([BIN, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL, stderr=log)
        folder = pathlib.Path("/proc") / str(process.pid)
        while process.poll() is None:
            time.sleep(every)
            try:
                resident = int((folder / "statm").read_text().split()[1]) * PAGE
                files = len(list((folder / "fd").iterdir()))
                ticks = sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
                step = last_line(out / "metrics.jsonl")["step"]
                samples.append((step, resident, files, ticks / os.sysconf("SC_CLK_TCK")))
            except (OSError, KeyError, IndexError, ValueError):
                pass  # it has not begun, or has ended
        log.seek(0)
        assert process.returncode == 0, log.read()[-3000:]
    return samples


def parts(samples, steps):
    """Those of the second and of the last twentieth of the steps that were seen."""
    first = [sample for sample in samples if 0.05 * steps < sample[0] <= 0.15 * steps]
    last = [sample for sample in samples if 0.9 * steps < sample[0] < steps]
    assert len(first) > 3 and len(last) > 3, f"{len(samples)} samples are too few to tell"
    return first, last


def test_ten_thousand_steps_grow_nothing(tmp_path, small, rows_file):
    """Evaluations and checkpoints in between, each two hundred times."""
    data = write_rows(tmp_path / "rows.jsonl", toy.rows(64, seed=1))
    keys = {"model_name_or_path": small, "datasets": [data], "eval_datasets": [rows_file], "template": "none",
            "lora_rank": 2, "max_steps": STEPS, "per_device_train_batch_size": 1, "num_threads": 1,
            "eval_steps": STEPS // 200, "save_steps": STEPS // 200, "learning_rate": 1e-4, "early_stopping_patience": 0}
    samples = watched(train_arguments(tmp_path, **keys), tmp_path / "out", 0.05)
    first, last = parts(samples, STEPS)
    resident = [statistics.median(sample[1] for sample in part) for part in (first, last)]
    files = [max(sample[2] for sample in part) for part in (first, last)]
    lines = metrics(tmp_path / "out")
    assert len(lines) == STEPS
    # Of the processor: other programs on the machine make the clock's seconds longer.
    seconds = [(part[-1][3] - part[0][3]) / (part[-1][0] - part[0][0]) for part in (first, last)]
    print(f"{STEPS} steps: resident {resident[0] / 2**20:.2f} -> {resident[1] / 2**20:.2f} MiB, files {files[0]} -> {files[1]}, "
          f"a step with its share of evaluations and checkpoints {seconds[0] * 1e3:.3f} -> {seconds[1] * 1e3:.3f} ms of the processor")
    assert resident[1] - resident[0] < 1 << 20, resident
    assert files[1] <= files[0], files
    assert seconds[1] < 1.2 * seconds[0], seconds


def short_rows(path, count):
    """Rows that all differ, of about ten tokens."""
    with open(path, "w") as file:
        for i in range(count):
            file.write(f'{{"prompt": "pod {100_000 + i} =", "completion": " node {10 + i % 87}"}}\n')
    return path


def test_memory_of_many_rows(tmp_path, small):
    """A row takes a bounded number of bytes, and a run over them is flat."""
    peaks, tokens = [], 0
    for count in (ROWS // 10, ROWS):
        data = short_rows(tmp_path / "rows.jsonl", count)
        folder = tmp_path / str(count)
        # Small batches have few lengths: products are compiled for each, which is not what is measured here.
        keys = {"model_name_or_path": small, "datasets": [data], "template": "none", "lora_rank": 2, "num_threads": 1,
                "per_device_train_batch_size": 4, "max_steps": 4000, "save_steps": 10**6, "logging_steps": 1}
        samples = watched(train_arguments(folder, **keys), folder / "out", 0.05, tmp_path / f"cache{count}")
        lines = metrics(folder / "out")
        peaks.append(lines[-1]["peak_memory_bytes"])
        tokens = sum(line["tokens"] for line in lines) / (4 * len(lines))
    first, last = parts(samples, lines[-1]["step"])
    resident = [statistics.median(sample[1] for sample in part) for part in (first, last)]
    each = (peaks[1] - peaks[0]) / (ROWS - ROWS // 10)
    print(f"{ROWS} rows of {tokens:.1f} tokens: peak {peaks[1] / 2**20:.0f} MiB, {each:.0f} bytes a row; "
          f"in training {resident[0] / 2**20:.1f} -> {resident[1] / 2**20:.1f} MiB")
    assert each < MOST_BYTES_A_ROW
    assert resident[1] - resident[0] < 2 << 20, resident


def test_four_at_once_are_four_alone(tmp_path, model):
    """One base, one cache of quantized weights and one of tokens, all empty at the start."""
    data = short_rows(tmp_path / "rows.jsonl", 120_000)  # reading takes more than the second from which tokens are kept
    keys = {"model_name_or_path": model, "datasets": [data], "template": "none", "lora_rank": 4, "quantization": "nf4",
            "max_steps": 20, "per_device_train_batch_size": 8, "num_threads": 1}

    def arguments(name):
        return [str(word) for word in train_arguments(tmp_path / name, **keys)]

    def environment(name):
        return {**ENVIRONMENT, "FINETUNE_CACHE_DIR": str(tmp_path / name)}

    run(*arguments("alone"), env=environment("cache alone"))
    for attempt in range(2):  # the second time from full caches
        together = [subprocess.Popen([BIN, *arguments(f"{attempt} {i}")], env=environment("cache together"),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for i in range(4)]
        for process in together:
            _, text = process.communicate(timeout=300)
            assert process.returncode == 0, text.decode()
            assert b"not cached" not in text, text.decode()
    alone = result(tmp_path / "alone/out")
    for attempt in range(2):
        for i in range(4):
            assert result(tmp_path / f"{attempt} {i}/out") == alone

    def cached(name):
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert cached("cache together") == cached("cache alone")
    assert sorted(name.split("-")[0] for name in cached("cache alone")) == ["dataset", "nf4"]
