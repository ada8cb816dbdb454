"""Runs the built program from outside, as a user does."""

import json
import os
import pathlib
import subprocess

SOURCE_DIR = pathlib.Path(os.environ.get("FINETUNE_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
SHARED_DIR = pathlib.Path(os.environ.get("FINETUNE_SHARED_DIR", SOURCE_DIR.parent / "shared"))
BIN = os.environ.get("FINETUNE_BIN", str(SOURCE_DIR / "build/release/finetune"))
DEVICE = os.environ.get("FINETUNE_TEST_DEVICE", "cpu")


def run(*arguments, expect=0, cwd=None, stdin=None, env=None, timeout=600):
    """Runs `finetune arguments...` and checks the exit code; returns the completed process."""
    command = [BIN, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"exit code {done.returncode}, expected {expect}: {' '.join(command)}\n"
                             f"--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}")
    return done


def write_config(path, **keys):
    """A configuration file: a JSON value is a YAML value."""
    path.write_text("".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in keys.items()))
    return path


def train_arguments(folder, **keys):
    """`train --config FILE` with the file written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"device": DEVICE, "dtype": "float32", "output_dir": folder / "out", **keys}
    return ["train", "--config", write_config(folder / "config.yaml", **keys)]


def train(folder, *more, expect=0, **keys):
    """Trains with the given keys in float32; returns the output folder."""
    run(*train_arguments(folder, **keys), *more, expect=expect)
    return pathlib.Path(keys.get("output_dir", folder / "out"))


def metrics(output_dir, kind="loss"):
    """The lines of metrics.jsonl that have `kind`: "loss" for steps, "eval_loss" for evaluations."""
    lines = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if kind in line]


def predictions(folder, model, data, *more, adapter=None):
    """The rows of `eval --predictions` in float32, by variant."""
    file = pathlib.Path(folder) / "predictions.jsonl"
    file.unlink(missing_ok=True)
    adapter_arguments = ["--adapter", adapter] if adapter else []
    run("eval", "--model", model, *adapter_arguments, "--data", data, "--predictions", file,
        f"device={DEVICE}", "dtype=float32", "template=none", *more)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {variant: [row for row in rows if row["variant"] == variant]
            for variant in sorted({row["variant"] for row in rows})}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def snapshot(folder, names=None):
    """Name -> bytes of the files of a folder, without its checkpoints."""
    files = [folder / name for name in names] if names else sorted(p for p in folder.iterdir() if p.is_file())
    return {file.name: file.read_bytes() for file in files}
