"""What rows begin with alike, computed once: the same loss and gradient as every row by itself, in every family."""

import family
import peer
import pytest
import toy
from program import metrics, run, train, train_arguments, write_rows
from safetensors.torch import load_file

# Rotary angles that depend on the length of each row, and a loss that counts the tokens of every row.
NOT_SHARED = ["phi3, longrope, window", "phi3, partial rotary longrope", "mixtral, auxiliary loss"]
EVERY = [*family.FAMILIES, *family.SWITCHES]


def shared_rows():
    """Three rows with one beginning, longer than every window of the families, two with another, one with none."""
    rows = toy.rows(6, seed=8, low=4, high=8)
    first, second = (row["prompt"] for row in toy.rows(2, seed=9, low=40, high=41))
    return [{**row, "prompt": beginning + " " + row["prompt"]}
            for row, beginning in zip(rows, [first, second, first, "", second, first], strict=True)]


def settings(model, data, adapter, **changes):
    return {"model_name_or_path": model, "datasets": [data], "template": "none", "shuffle": False,
            "init_lora_weights": adapter, "optim": "sgd", "learning_rate": 1000.0, "max_steps": 1, "max_grad_norm": 0,
            "lr_scheduler_type": "constant", "per_device_train_batch_size": 6, **changes}


@pytest.mark.parametrize("name", EVERY)
def test_the_same_gradient(tmp_path, name):
    model = family.make(tmp_path / "model", name)
    data = write_rows(tmp_path / "rows.jsonl", shared_rows())
    adapter = peer.make_adapter(tmp_path / "adapter", model, target_modules=family.targets(name))
    if name in NOT_SHARED:
        done = run(*train_arguments(tmp_path / "on", prefix_sharing="on", **settings(model, data, adapter)), expect=2)
        assert "prefix_sharing: on cannot give what each row alone gives here" in done.stderr
        train(tmp_path / "auto", **settings(model, data, adapter))
        return
    apart = train(tmp_path / "off", prefix_sharing="off", **settings(model, data, adapter))
    for name, changes in {"once": {}, "recomputed": {"gradient_checkpointing": True}}.items():
        out = train(tmp_path / name, prefix_sharing="on", **settings(model, data, adapter, **changes))
        mine, his = metrics(out)[0], metrics(apart)[0]
        assert mine["loss"] == pytest.approx(his["loss"], rel=1e-6)
        assert mine["tokens"] == his["tokens"]
        begin, expected, result = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, apart, out))
        apart_by = {key: (result[key] - expected[key]).norm() for key in begin}
        size = {key: (expected[key] - begin[key]).norm() for key in begin}
        # Both sums round in float32, each in its own order; in float64 they are equal to 1e-12 (tests/nn/attention_test.cpp).
        assert sum(apart_by.values()) <= 2e-6 * sum(size.values())
        for key in begin:  # of a small tensor, float32 leaves less
            assert apart_by[key] <= 1e-5 * size[key] + 1e-6 * begin[key].norm(), key


@pytest.mark.parametrize("changes", [{"lora_dropout": 0.1}, {"neftune_noise_alpha": 5}], ids=lambda changes: next(iter(changes)))
def test_rows_with_noise_of_their_own_are_not_shared(tmp_path, model, changes):
    data = write_rows(tmp_path / "rows.jsonl", shared_rows())
    keys = {"model_name_or_path": model, "datasets": [data], "template": "none", "max_steps": 1, **changes}
    done = run(*train_arguments(tmp_path / "on", prefix_sharing="on", **keys), expect=2)
    assert "leave it at auto" in done.stderr
    losses = {value: metrics(train(tmp_path / value, prefix_sharing=value, **keys))[0]["loss"] for value in ("auto", "off")}
    assert losses["auto"] == losses["off"]
