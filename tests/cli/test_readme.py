"""The commands of the README, as printed, on the embedded model; training is cut to two steps, answers to eight tokens."""

import os
import re
import shlex
import subprocess

import pytest
from program import BIN, SOURCE_DIR

README = SOURCE_DIR / "README.md"
SHORT = {"train": ["max_steps=2", "eval_steps=2"], "eval": ["--max-new-tokens", "8"], "merge": [], "generate": []}


def commands():
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("finetune ")]


def scripts():
    return sorted(set(re.findall(r"\b(?:scripts|configs|docs|data)/[\w./-]*\w", README.read_text())))


def test_readme_names_what_exists():
    missing = [name for name in scripts() if not (SOURCE_DIR / name).exists()]
    assert not missing


def test_commands(tmp_path):
    if not (SOURCE_DIR / "data/tiny-base/model.safetensors").exists():
        pytest.skip("no embedded model in this tree")
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(SOURCE_DIR / name)
    assert commands()
    for command in commands():
        verb = command[1]
        done = subprocess.run([BIN, *command[1:], *SHORT.get(verb, [])], cwd=tmp_path, capture_output=True,
                              text=True, timeout=900, env={**os.environ})
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
