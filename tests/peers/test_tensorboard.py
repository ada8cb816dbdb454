"""Event files as TensorBoard reads them, and Prometheus' text file."""

import math
import re

import program
import pytest
import toy

BASE = program.SOURCE_DIR / "data/tiny-base"


def scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_are_those_of_the_metrics(tmp_path):
    data = program.write_rows(tmp_path / "rows.jsonl", toy.rows(20))
    keys = {"model": BASE, "datasets": [{"path": str(data)}], "eval_split": 0.2, "template": "none", "eval_steps": 2, "save_steps": 2,
            "per_device_train_batch_size": 4, "prometheus_file": str(tmp_path / "finetune.prom")}
    out = program.train(tmp_path, **keys, max_steps=4, lr_scheduler_type="constant")
    found = scalars(out / "tensorboard")
    for kind, names in (("loss", ["loss", "learning_rate", "grad_norm", "tokens_per_second"]), ("eval_loss", ["eval_loss", "eval_token_accuracy"])):
        for name in names:
            tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
            expected = [(line["step"], line[name]) for line in program.metrics(out, kind)]
            assert [step for step, _ in found[tag]] == [step for step, _ in expected]
            assert all(math.isclose(a, b, rel_tol=1e-6) for (_, a), (_, b) in zip(found[tag], expected))
    prom = (tmp_path / "finetune.prom").read_text()
    newest = dict(re.findall(r'^finetune_(\w+)\{run="[^"]*"\} (\S+)$', prom, re.MULTILINE))
    assert float(newest["step"]) == 4 and float(newest["loss"]) == program.metrics(out)[-1]["loss"]
    assert not program.run("train", "--config", tmp_path / "config.yaml", "overwrite_output_dir=true", "tensorboard=false", "max_steps=1").returncode
    assert not (out / "tensorboard").exists()
