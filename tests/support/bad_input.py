"""A table of bad inputs: what is wrong, the exit code, and what the message has to say.

A file of tests lists its cases and calls `table_of`; the program runs once for each, several at a time. Whatever the
case, the program may not crash, hang, eat memory, write outside of its output folder, or leave half a file there.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
from typing import Callable

import pytest
from program import BIN, write_config
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

SECONDS = 60  # a case that takes longer hangs
MEMORY = 2 << 30  # bytes; LibTorch and a toy model take 0.3 GB


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    code: int
    says: tuple  # regular expressions; standard error holds all of them
    arrange: Callable  # Place -> arguments of the program; makes the files of the case

    def __str__(self):
        return self.name


@dataclasses.dataclass
class Place:
    """Where a case lives. `model`, `rows` and `adapter` are sound and shared: copy them before damaging."""
    folder: pathlib.Path
    model: pathlib.Path
    rows: pathlib.Path
    adapter: pathlib.Path

    @property
    def out(self):
        return self.folder / "out"

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def copy_of(self, original):
        """A copy to be damaged, named like the original."""
        return pathlib.Path(shutil.copytree(original, self.folder / original.name))

    def train(self, **keys):
        """`train` on the toy model with these keys changed; None leaves one out."""
        keys = {"model_name_or_path": self.model, "datasets": [self.rows], "template": "none", "dtype": "float32",
                "device": "cpu", "max_steps": 1, "per_device_train_batch_size": 2, "num_threads": 1,
                "output_dir": self.out, **keys}
        keys = {key: value for key, value in keys.items() if value is not None}
        return ["train", "--config", write_config(self.folder / "config.yaml", **keys)]

    def eval(self, model=None, adapter=None, data=None):
        more = ["--adapter", adapter] if adapter else []
        return ["eval", "--model", model or self.model, *more, "--data", data or self.rows, "template=none",
                "device=cpu", "num_threads=1"]


def changed_tensors(name, change):
    """Damage of a folder: the tensors of one of its safetensors files, a dict that `change` works on."""
    def damage(folder):
        values = load_file(folder / name)
        change(values)
        save_file(values, folder / name)
    return damage


def changed_fields(name, values):
    """Damage of a folder: fields of one of its JSON files; None removes one."""
    def damage(folder):
        content = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return damage


@dataclasses.dataclass
class Outcome:
    code: int | None  # None: it was still running after SECONDS
    stdout: str
    stderr: str
    memory: int  # peak resident bytes
    strays: list  # files that appeared outside of the output folder
    damaged: list  # files in the output folder that are not whole


def files_of(folder):
    return {path for path in folder.rglob("*") if not path.is_dir()}


def problem_of(path):
    """What is wrong with a result file, or ""."""
    try:
        if path.name.endswith(".tmp"):
            return "a temporary file was left"
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as tensors:
                list(tensors.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
    except Exception as error:
        return repr(error)
    return ""


def run_case(case, place):
    arguments = [str(word) for word in case.arrange(place)]
    before = files_of(place.folder)
    home = place.folder / "home"
    here = place.folder / "here"
    here.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": "1",
                   "GOMP_SPINCOUNT": "3000"}  # given, so that the program need not start itself again with it
    with open(place.folder / "stdout", "w+b") as stdout, open(place.folder / "stderr", "w+b") as stderr:
        process = subprocess.Popen([BIN, *arguments], cwd=here, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=stdout, stderr=stderr)
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        late = not timer.is_alive()
        timer.cancel()
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    after = files_of(place.folder) - before - {place.folder / "stdout", place.folder / "stderr"}
    inside = {path for path in after if place.out in path.parents}
    damaged = [f"{path}: {problem}" for path in sorted(inside) if (problem := problem_of(path))]
    return Outcome(None if late else process.returncode, *texts, usage.ru_maxrss * 1024,
                   sorted(map(str, after - inside)), damaged)


def check(case, outcome):
    shown = f"{case.name}: exit code {outcome.code}\n{outcome.stderr[-3000:]}"
    assert outcome.code is not None, f"still running after {SECONDS} s: {shown}"
    assert outcome.code >= 0, f"crashed: {shown}"
    assert outcome.code == case.code, f"expected {case.code}: {shown}"
    for pattern in case.says:
        assert re.search(pattern, outcome.stderr), f"{pattern!r} is not in {shown}"
    for word in ("a defect of finetune", "terminate called", "json.exception", "Exception raised from", "std::"):
        assert word not in outcome.stderr, shown
    assert len(outcome.stderr) < 20_000, "a message nobody can read"
    assert outcome.memory < MEMORY, f"{outcome.memory >> 20} MiB"
    assert not outcome.strays and not outcome.damaged


def table_of(cases):
    """The test of a table, and the fixture that runs all its cases side by side before the first."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)

    @pytest.fixture(scope="module")
    def outcomes(tmp_path_factory, model, rows_file, adapter, request):
        chosen = [item.callspec.params["case"] for item in request.session.items
                  if item.module is request.module and "outcomes" in item.fixturenames]
        places = [Place(tmp_path_factory.mktemp("case"), model, rows_file, adapter) for _ in chosen]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(run_case, chosen, places)
            return {case.name: outcome for case, outcome in zip(chosen, results)}

    @pytest.mark.parametrize("case", cases, ids=str)
    def test_bad_input(case, outcomes):
        check(case, outcomes[case.name])

    return outcomes, test_bad_input
