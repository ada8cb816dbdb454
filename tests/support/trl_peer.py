"""Thirty steps by TRL and by the program, from the same adapter over the same rows."""

import peer
import pytest
from program import metrics, train
from safetensors.torch import load_file

STEPS, BATCH, RATE = 30, 4, 1e-3


def arguments(folder):
    """Of every trainer of TRL: what the program does too. The norm is there to be logged, not to clip."""
    return {"output_dir": str(folder), "per_device_train_batch_size": BATCH, "max_steps": STEPS, "learning_rate": RATE,
            "lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 1e9, "logging_steps": 1, "bf16": False,
            "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
            "disable_tqdm": True, "remove_unused_columns": False}


def history(trainer):
    """The log of each step."""
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def our_run(folder, model, adapter, data, **settings):
    """(the log of each step, the folder of the result)"""
    out = train(folder, model_name_or_path=model, datasets=[data], template="none", shuffle=False, init_lora_weights=adapter,
                learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0, per_device_train_batch_size=BATCH,
                max_steps=STEPS, **settings)
    return metrics(out), out


def tokenizer_of(model):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.unk_token  # a reward is read at the last token that is none of it
    return tokenizer


def same_curves(mine, theirs, names, tolerance=1e-4):
    """TRL rounds all but loss and norm."""
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in theirs], rel=tolerance, abs=1e-5), name
    for name in names:
        assert [name in line for line in mine] == [name in line for line in theirs], name
        values = [[line[name] for line in lines if name in line] for lines in (mine, theirs)]
        assert values[0] == pytest.approx(values[1], rel=5e-4, abs=5e-4), name


def same_parameters(folder, policy, tolerance=2e-3):
    """AdamW moves a weight whose gradient is rounding by as much as any other, so a few differ more than the loss."""
    mine = load_file(folder / "adapter_model.safetensors")
    theirs = peer.trainable(policy)
    for name, parameter in theirs.items():
        key = name.replace("modules_to_save.", "")
        assert (mine[key] - parameter.detach()).abs().max() < tolerance * max(1.0, parameter.abs().max()), name
    assert len(mine) == len(theirs)
