"""Optimizers beside torch, bitsandbytes and PEFT: the same rows, the same steps, the same curves."""

import os
import pathlib
import subprocess

import peer
import program
import pytest
import toy
import torch
from program import metrics, train, write_rows
from safetensors.torch import load_file, save_file

bitsandbytes = pytest.importorskip("bitsandbytes")

ROWS = toy.rows(16, seed=5)
BATCH = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory):
    """Every linear has more than 4096 weights, so that bitsandbytes keeps its moments in eight bits."""
    return toy.make_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=96, intermediate_size=128)


def keys(model, data, **changes):
    return {"model_name_or_path": model, "datasets": [data], "template": "none", "shuffle": False,
            "lr_scheduler_type": "constant", "max_grad_norm": 0, "per_device_train_batch_size": BATCH, **changes}


def groups(model, weight_decay):
    """As transformers' Trainer: norms do not decay."""
    named = dict(model.named_parameters())
    return [{"params": [p for name, p in named.items() if "norm" not in name], "weight_decay": weight_decay},
            {"params": [p for name, p in named.items() if "norm" in name], "weight_decay": 0.0}]


def their_curve(model, optimizer, encoded, steps):
    losses = []
    for step in range(steps):
        first = step * BATCH % len(encoded)
        loss = peer.mean_loss(model, encoded[first:first + BATCH])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def nearest_codes(monkeypatch):
    """bitsandbytes' own quantizer in torch, which takes the nearest code as that of its GPU kernels does. The one in
    its CPU library finds a code in a coarse table and is off by some codes near zero."""
    from bitsandbytes.backends.cpu import ops

    def quantize(numbers, code, absmax_out, out, blocksize):
        operator = torch.ops.bitsandbytes.quantize_blockwise.default
        codes, absmax = operator._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, numbers, code, blocksize)
        out.copy_(codes)
        absmax_out.copy_(absmax)

    monkeypatch.setattr(ops, "_quant_blockwise_fp32_direct", quantize)


def losses(out):
    return [line["loss"] for line in metrics(out)]


THEIRS = {
    "adamw": lambda model: torch.optim.AdamW(groups(model, 0.1), lr=1e-3, betas=(0.9, 0.98)),
    "adamw_8bit": lambda model: bitsandbytes.optim.AdamW8bit(groups(model, 0.1), lr=1e-3, betas=(0.9, 0.98)),
    "lion": lambda model: bitsandbytes.optim.Lion(groups(model, 0.1), lr=1e-4, betas=(0.9, 0.98)),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
}

# float32 rounds sums in another order, and fifty steps enlarge that: lion by the sign of what is nearly zero,
# eight bits by a neighbouring code.
TOLERANCE = {"adamw": 1e-4, "adamw_8bit": 2e-3, "lion": 1e-3, "sgd": 1e-4}


@pytest.mark.parametrize("optim", THEIRS)
def test_fifty_steps(tmp_path, wide_model, data, nearest_codes, optim):
    theirs = peer.load(wide_model)
    optimizer = THEIRS[optim](theirs)
    expected = their_curve(theirs, optimizer, peer.encode(wide_model, ROWS), 50)
    ours = losses(train(tmp_path, method="full", optim=optim, learning_rate=optimizer.param_groups[0]["lr"],
                        weight_decay=0 if optim == "sgd" else 0.1, momentum=0.9, adam_beta2=0.98, max_steps=50,
                        **keys(wide_model, data)))
    assert ours == pytest.approx(expected, rel=TOLERANCE[optim])
    assert ours[-1] < 0.9 * ours[0]


OPTIMIZER_STEPS = os.environ.get("FINETUNE_OPTIMIZER_STEPS", pathlib.Path(program.BIN).parent / "tests/optimizer_steps")


def run_steps(folder, optim, values, gradients):
    save_file({"values": values, "gradients": gradients}, folder / "case.safetensors")
    subprocess.run([OPTIMIZER_STEPS, folder / "case.safetensors", folder / "result.safetensors", optim], check=True)
    return load_file(folder / "result.safetensors")


SAME_GRADIENTS = {**THEIRS, "lion": lambda model: bitsandbytes.optim.Lion(groups(model, 0.1), lr=1e-3, betas=(0.9, 0.98))}


@pytest.mark.parametrize("steps", [1, 5, 50])
@pytest.mark.parametrize("optim", THEIRS)
def test_same_gradients_same_update(tmp_path, nearest_codes, optim, steps):
    """Both get the same gradients, with rows of very different sizes and a row of zeros, so that nothing but the
    rule itself is compared: values, moments, and with eight bits every code and scale."""
    generator = torch.Generator().manual_seed(3)
    values = 0.01 * torch.randn(24 * 256, generator=generator)
    sizes = torch.logspace(-8, 1, 24).repeat_interleave(256)
    sizes[512:768] = 0
    gradients = torch.randn(steps, 24 * 256, generator=generator) * sizes
    holder = torch.nn.Module()
    holder.w = torch.nn.Parameter(values.clone())
    optimizer = SAME_GRADIENTS[optim](holder)
    for gradient in gradients:
        holder.w.grad = gradient.clone()
        optimizer.step()
    result, state = run_steps(tmp_path, optim, values, gradients), optimizer.state[holder.w]
    live = sizes > 0  # a block of zeros may have any code
    near_codes = 2e-3 if optim == "adamw_8bit" else 0
    moved = (holder.w.detach() - values).abs().max()
    assert (result["values"] - holder.w.detach()).abs().max() <= 1e-5 * moved + near_codes * moved
    if optim != "adamw_8bit":
        names = {"adamw": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}, "lion": {"exp_avg": "state1"},
                 "sgd": {"momentum_buffer": "momentum_buffer"}}[optim]
        for ours, his in names.items():
            torch.testing.assert_close(result[ours], state[his], rtol=1e-5, atol=1e-12)
        return
    for ours, number in (("exp_avg", 1), ("exp_avg_sq", 2)):
        torch.testing.assert_close(result[f"{ours}.absmax"], state[f"absmax{number}"], rtol=1e-5, atol=1e-30)
        apart = (result[f"{ours}.codes"].int() - state[f"state{number}"].int())[live].abs()
        assert apart.max() <= 1  # numbers half-way between two codes fall to either side
        assert (apart == 0).float().mean() > 0.999


def test_eight_bits_follow_the_cpu_library(tmp_path, wide_model, data):
    """As it is installed, coarse table included."""
    theirs = peer.load(wide_model)
    expected = their_curve(theirs, THEIRS["adamw_8bit"](theirs), peer.encode(wide_model, ROWS), 50)
    ours = losses(train(tmp_path, method="full", optim="adamw_8bit", learning_rate=1e-3, weight_decay=0.1,
                        adam_beta2=0.98, max_steps=50, **keys(wide_model, data)))
    assert ours == pytest.approx(expected, rel=0.05)


def test_eight_bits_follow_float32(tmp_path, wide_model, data):
    settings = keys(wide_model, data, method="full", learning_rate=1e-3, max_steps=50)
    eight, exact = (losses(train(tmp_path / optim, optim=optim, **settings)) for optim in ("adamw_8bit", "adamw"))
    assert eight == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("optim", ["adamw", "lion"])
def test_loraplus(tmp_path, model, data, optim):
    from peft.optimizers import create_loraplus_optimizer
    rate, ratio, decay = (2e-3, 16, 0.1) if optim == "adamw" else (2e-4, 16, 0.1)
    adapter = peer.make_adapter(tmp_path / "adapter", model, target_modules="all-linear")
    theirs = peer.load_with_adapter(model, adapter, trainable=True)
    kind = torch.optim.AdamW if optim == "adamw" else bitsandbytes.optim.Lion
    optimizer = create_loraplus_optimizer(theirs, kind, lr=rate, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay,
                                          betas=(0.9, 0.98))
    expected = their_curve(theirs, optimizer, peer.encode(model, ROWS), 30)
    out = train(tmp_path, init_lora_weights=adapter, optim=optim, learning_rate=rate, loraplus_lr_ratio=ratio,
                weight_decay=decay, adam_beta2=0.98, max_steps=30, **keys(model, data))
    assert losses(out) == pytest.approx(expected, rel=1e-3)
    plain = losses(train(tmp_path / "plain", init_lora_weights=adapter, optim=optim, learning_rate=rate,
                         weight_decay=decay, adam_beta2=0.98, max_steps=30, **keys(model, data)))
    assert losses(out)[-1] != pytest.approx(plain[-1], rel=1e-2)


@pytest.mark.parametrize("optim", THEIRS)
def test_optimizer_in_backward_is_the_same_run(tmp_path, wide_model, data, optim):
    settings = keys(wide_model, data, method="full", optim=optim, learning_rate=1e-4, max_steps=10)
    one, other = (train(tmp_path / str(inside), optimizer_in_backward=inside, **settings) for inside in (False, True))
    assert losses(other) == pytest.approx(losses(one), rel=1e-5)
    norms = [[line["grad_norm"] for line in metrics(out)] for out in (one, other)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


@pytest.mark.parametrize("optim", ["adamw", "adamw_8bit"])
def test_pure_bf16_follows_float32(tmp_path, wide_model, data, optim):
    """At a rate whose steps are mostly below half a step of bfloat16, which the nearest value would lose."""
    settings = keys(wide_model, data, method="full", learning_rate=2e-4, max_steps=60)
    masters = losses(train(tmp_path / "float32", **settings))
    out = train(tmp_path / "bfloat16", pure_bf16=True, optim=optim, **settings)
    fallen = masters[0] - masters[-1]
    assert fallen > 0.1
    assert losses(out)[-1] == pytest.approx(masters[-1], abs=0.1 * fallen)
    # What the run has in mind is bfloat16, in the type of the base on disk; transformers opens it.
    assert all(torch.equal(tensor.bfloat16().float(), tensor) for tensor in load_file(out / "model.safetensors").values())
    assert peer.mean_loss(peer.load(out), peer.encode(wide_model, ROWS)).item() < masters[0]


@pytest.mark.parametrize("layers", [1, -1])
def test_freeze_trainable_layers(tmp_path, wide_model, data, layers):
    out = train(tmp_path, method="full", freeze_trainable_layers=layers, learning_rate=1e-3, max_steps=2,
                **keys(wide_model, data))
    before, after = load_file(wide_model / "model.safetensors"), load_file(out / "model.safetensors")
    block = "model.layers.1." if layers == 1 else "model.layers.0."
    assert {name for name in before if not torch.equal(before[name], after[name])} == {name for name in before
                                                                                      if name.startswith(block)}
