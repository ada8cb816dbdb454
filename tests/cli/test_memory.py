"""Memory that is not there: told before the start, or the end with exit code 5 and what to change."""

import json
import random
import re
import resource
import subprocess

import pytest
import toy
from program import BIN, metrics, run, train_arguments, write_rows
from test_kills import ENVIRONMENT

KEYS = {"template": "none", "per_device_train_batch_size": 2, "max_steps": 2, "num_threads": 1}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Thirteen million values: training all of them with Adam takes 200 MB."""
    return toy.make_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=512, intermediate_size=1536,
                          num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8)


def in_container(limit, command, cwd):
    """Runs the command where /sys/fs/cgroup says that the group may have `limit` bytes. Nothing holds it to that."""
    script = f"""
        mount -t tmpfs tmpfs /sys/fs/cgroup || exit 99
        echo {limit} > /sys/fs/cgroup/memory.max
        mkdir -p /sys/fs/cgroup/memory; echo {limit} > /sys/fs/cgroup/memory/memory.limit_in_bytes
        exec "$@" """
    done = subprocess.run(["unshare", "-m", "bash", "-c", script, "bash", *map(str, command)], cwd=cwd,
                          env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("mount namespaces are not permitted here")
    return done


def train_in(limit, folder, **keys):
    return in_container(limit, [BIN, *train_arguments(folder, **keys)], folder)


@pytest.mark.parametrize("keys", [{"method": "full"}, {"method": "full", "optim": "adamw_8bit"}, {"dtype": "bfloat16"}],
                         ids=str)
def test_what_cannot_fit_is_refused_before_the_start(tmp_path, wide, rows_file, keys):
    keys = {**KEYS, "model_name_or_path": wide, "datasets": [rows_file], **keys}
    done = train_in(20_000_000, tmp_path, **keys)
    assert done.returncode == 5, done.stderr
    assert "the run needs at least" in done.stderr and "19 MiB: the memory limit of this container" in done.stderr
    assert "optim: adamw_8bit" in done.stderr or keys.get("optim") or "nf4" in done.stderr
    assert not list((tmp_path / "out").glob("*.safetensors")) and not (tmp_path / "out/metrics.jsonl").exists()


@pytest.mark.parametrize("keys", [{"method": "full"}, {"method": "full", "optim": "sgd"}, {"method": "full", "optim": "lion"},
                                  {"dtype": "bfloat16"}, {"quantization": "nf4"}, {"quantization": "int8"},
                                  {"gradient_checkpointing": True}, {"method": "adapter"}], ids=str)
def test_what_fits_is_never_refused(tmp_path, wide, rows_file, keys):
    """A limit of what the run was seen to take, less what the program takes with a model of nothing."""
    keys = {**KEYS, "model_name_or_path": wide, "datasets": [rows_file], **keys}
    run(*train_arguments(tmp_path / "a", **keys))
    peak = metrics(tmp_path / "a/out")[-1]["peak_memory_bytes"]
    small = toy.make_model(tmp_path / "small")
    run(*train_arguments(tmp_path / "b", **{**keys, "model_name_or_path": small}))
    program = metrics(tmp_path / "b/out")[-1]["peak_memory_bytes"]
    done = train_in(peak - program, tmp_path / "c", **keys)
    assert done.returncode == 0, done.stderr


def test_plan_tells_at_least_as_much(tmp_path, wide, rows_file):
    for keys in ({"method": "full"}, {}, {"dtype": "bfloat16"}):
        keys = {**KEYS, "model_name_or_path": wide, "datasets": [rows_file], **keys}
        arguments = train_arguments(tmp_path, **keys)
        plan = json.loads(run("plan", *arguments[1:], "--json").stdout)
        done = in_container(1, [BIN, *arguments], tmp_path)
        said = done.stderr.split("the run needs at least ")[1].split(" of memory")[0]
        number, unit = said.split()
        assert float(number) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit] < plan["peak_memory_bytes"]


def test_every_amount_of_memory_ends_well(tmp_path, model):
    """Address space from too little to enough, in steps: exit code 0 or 5, and never a crash, a hang or another error."""
    rows = write_rows(tmp_path / "rows.jsonl", toy.rows(1500, seed=3))
    keys = {**KEYS, "model_name_or_path": model, "datasets": [rows], "per_device_train_batch_size": 1500}
    arguments = [BIN, *map(str, train_arguments(tmp_path, **keys)), "overwrite_output_dir=true"]

    def outcome(limit):
        def limited():
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        done = subprocess.run(arguments, env={**ENVIRONMENT, "GOMP_SPINCOUNT": "3000"}, preexec_fn=limited,
                              capture_output=True, text=True, timeout=120)
        if "shared object" in done.stderr or "shared librar" in done.stderr:
            return None  # the program itself needs more
        return done

    low, high = 64 << 20, 8 << 30
    while high - low > 16 << 20:  # the least with which it ends well
        middle = (low + high) // 2
        done = outcome(middle)
        low, high = (low, middle) if done is not None and done.returncode == 0 else (middle, high)
    codes = {}
    for limit in range(high - (160 << 20), high + (32 << 20), 16 << 20):
        done = outcome(limit)
        if done is None:
            continue
        assert done.returncode in (0, 5), f"{limit >> 20} MiB: {done.returncode}\n{done.stderr}"
        assert done.returncode == 0 or "emory" in done.stderr or "thread" in done.stderr.lower(), done.stderr
        codes[limit] = done.returncode
    assert 5 in codes.values() and 0 in codes.values()


def test_the_largest_batch_comes_first(tmp_path, wide):
    """The longest row is the last of three hundred, the others have one length; the first step has seen its memory."""
    short, long = ({"prompt": "all =", "completion": " " + toy.sentence(random.Random(5), words)} for words in (8, 64))
    rows = write_rows(tmp_path / "rows.jsonl", [short] * 330 + [long])
    done = run(*train_arguments(tmp_path, model_name_or_path=wide, datasets=[rows], template="none", shuffle=False,
                                per_device_train_batch_size=1, num_train_epochs=1, max_length=4096))
    assert re.search(r"the largest batch of the run, \d+ tokens, has room", done.stderr), done.stderr
    first, *_, last = (line["peak_memory_bytes"] for line in metrics(tmp_path / "out"))
    # Measured 3 to 4 %; a run that did not try this row first grew by 15 %.
    assert last < 1.07 * first, f"{(last - first) / 1e6:.1f} MB more after the first step"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lengths_that_never_return_keep_no_memory(tmp_path, model, dtype):
    """Products are compiled for their shape on many processors, and every batch here has a length of its own."""
    rows = write_rows(tmp_path / "rows.jsonl", [
        {"prompt": "alpha =", "completion": " " + " ".join(["beta"] * (2 + i))} for i in range(100)])
    keys = {**KEYS, "model_name_or_path": model, "datasets": [rows], "per_device_train_batch_size": 1,
            "max_steps": 100, "dtype": dtype, "logging_steps": 10, "target_modules": "all-linear"}
    run(*train_arguments(tmp_path, **keys))
    peaks = {line["step"]: line["peak_memory_bytes"] for line in metrics(tmp_path / "out") if "loss" in line}
    assert peaks[100] - peaks[30] < 40e6, peaks
