"""The promises of a run, for every optimizer and for memory-lean full fine-tuning."""

import shutil

import pytest
import toy
from program import metrics, run, snapshot, train, train_arguments
from safetensors.numpy import load_file, save_file

LEAN = {"method": "full", "pure_bf16": True, "optimizer_in_backward": True, "max_grad_norm": 0}
MODES = {
    "lora lion": {"lora_rank": 4, "optim": "lion", "loraplus_lr_ratio": 4},
    "lora adamw_8bit": {"lora_rank": 128, "optim": "adamw_8bit"},  # more than 4096 elements
    "lora in backward": {"lora_rank": 4, "optimizer_in_backward": True, "max_grad_norm": 0},
    "full adamw_8bit": {"method": "full", "optim": "adamw_8bit"},
    "full pure_bf16": {"method": "full", "pure_bf16": True},
    "lean adamw_8bit": {**LEAN, "optim": "adamw_8bit"},
    "lean lion": {**LEAN, "optim": "lion"},
    "lean sgd": {**LEAN, "optim": "sgd", "momentum": 0.9},
}


@pytest.fixture
def keys(keys):
    keys.pop("lora_rank")
    return {**keys, "learning_rate": 1e-3, "max_steps": 4, "save_steps": 1, "save_total_limit": 10}


def weights(out):
    return snapshot(out, [next(name for name in ("adapter_model.safetensors", "model.safetensors")
                               if (out / name).exists())])


@pytest.mark.parametrize("mode", MODES)
def test_same_bytes_twice_and_resumed(tmp_path, keys, mode):
    keys.update(MODES[mode])
    whole = train(tmp_path / "whole", **keys)
    out = train(tmp_path / "part", **keys)
    assert weights(out) == weights(whole)
    state = "checkpoint-4/optimizer.safetensors"
    assert (out / state).read_bytes() == (whole / state).read_bytes()
    for step in (3, 4):
        shutil.rmtree(out / f"checkpoint-{step}")
    for name in weights(out):
        (out / name).unlink()
    run(*train_arguments(tmp_path / "part", **keys), "--resume")
    assert weights(out) == weights(whole)
    assert (out / state).read_bytes() == (whole / state).read_bytes()
    assert [line["loss"] for line in metrics(out)] == [line["loss"] for line in metrics(whole)]


def test_rounding_follows_the_seed(tmp_path, keys):
    keys.update(LEAN, optim="sgd", shuffle=False)
    assert weights(train(tmp_path / "1", **keys)) != weights(train(tmp_path / "2", **keys, seed=1))


def overflowing_model(folder):
    """A finite loss whose gradient overflows in block 0, after block 1 has its own."""
    toy.make_model(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1e25
    tensors["model.layers.0.mlp.down_proj.weight"] *= 1e-25
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("in_backward", [False, True])
def test_nonfinite_gradient(tmp_path, keys, in_backward):
    keys.update(method="full", max_grad_norm=0, model_name_or_path=overflowing_model(tmp_path / "model"))
    done = run(*train_arguments(tmp_path, optimizer_in_backward=in_backward, **keys), expect=6)
    if in_backward:
        assert "model.layers.0.mlp.down_proj.weight is not finite" in done.stderr
        assert "optimizer_in_backward had applied the gradients before it" in done.stderr
        assert "the last good one is the base model" in done.stderr
    else:
        assert "Nothing of this step was applied, and the state before it is the base model" in done.stderr
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_nonfinite_loss_applies_nothing(tmp_path, keys):
    """A rate so high that the second loss is not finite: the state after the first step is saved."""
    keys.update(LEAN, pure_bf16=False, optim="sgd", learning_rate=1e30, save_steps=100, lr_scheduler_type="constant")
    done = run(*train_arguments(tmp_path, **keys), expect=6)
    assert "Nothing of this step was applied, and the state before it is saved in" in done.stderr
    assert (tmp_path / "out/checkpoint-1/model.safetensors").exists()


@pytest.mark.parametrize("changes, message", [
    ({"optimizer_in_backward": True}, "set max_grad_norm: 0"),
    ({"optimizer_in_backward": True, "max_grad_norm": 0, "gradient_accumulation_steps": 2}, "expected 1"),
    ({"method": "full", "freeze_trainable_layers": 3}, "freeze_trainable_layers is 3; this model has 2 blocks"),
    ({"method": "full", "freeze_trainable_layers": 1, "trainable_modules": ".*"}, "are both given; keep one of them"),
], ids=str)
def test_what_does_not_go_together(tmp_path, keys, changes, message):
    assert message in run(*train_arguments(tmp_path, **{**keys, **changes}), expect=2).stderr
