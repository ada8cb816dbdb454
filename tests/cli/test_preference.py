"""Preference stages from outside: rows, messages, evaluation, reference, resume."""

import json

import pytest
import toy
from program import metrics, run, snapshot, train, train_arguments, write_rows

PAIRS = [{"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
         for a, b in zip(toy.rows(12, seed=1), toy.rows(12, seed=2), strict=True)]
WEIGHTS = ["adapter_model.safetensors"]


@pytest.fixture
def settings(model, tmp_path):
    return {"model_name_or_path": model, "datasets": [write_rows(tmp_path / "pairs.jsonl", PAIRS)], "template": "none",
            "stage": "dpo", "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def test_margins_grow(tmp_path, settings):
    out = train(tmp_path, eval_datasets=settings["datasets"], **{**settings, "max_steps": 20})
    lines, evals = metrics(out), metrics(out, "eval_loss")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert lines[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert evals[-1]["eval_rewards/margins"] > evals[0]["eval_rewards/margins"] + 0.01
    assert evals[-1]["eval_rewards/accuracies"] > 0.8
    assert evals[-1]["eval_loss"] < evals[0]["eval_loss"]
    assert "eval_perplexity" not in evals[-1]


@pytest.mark.parametrize("rows", [
    [{"prompt": [{"role": "user", "content": row["prompt"]}], "chosen": [{"role": "assistant", "content": row["chosen"]}],
      "rejected": [{"role": "assistant", "content": row["rejected"]}]} for row in PAIRS],
    [{answer: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[answer]}]
      for answer in ("chosen", "rejected")} for row in PAIRS],
    [{"conversations": [{"from": "human", "value": row["prompt"]}], "chosen": {"from": "gpt", "value": row["chosen"]},
      "rejected": {"from": "gpt", "value": row["rejected"]}} for row in PAIRS],
    [{"instruction": row["prompt"], "input": "", "chosen": row["chosen"], "rejected": row["rejected"]} for row in PAIRS],
], ids=["messages", "prompt inside", "conversations", "instruction"])
def test_every_shape_of_a_row_is_the_same_data(tmp_path, settings, rows):
    settings["template"] = "alpaca"
    plain = train(tmp_path / "plain", **settings)
    other = train(tmp_path / "other", **{**settings, "datasets": [write_rows(tmp_path / "other.jsonl", rows)]})
    assert snapshot(plain, WEIGHTS) == snapshot(other, WEIGHTS)


@pytest.mark.parametrize("row, message", [
    ({"prompt": "a", "chosen": "b"}, '"rejected" is missing'),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the chosen and the rejected answer are the same"),
    ({"chosen": "b", "rejected": "c"}, "there is no prompt"),
    ({"prompt": "a", "completion": "b"}, "expected a row like"),
    ({"prompt": "a", "chosen": "", "rejected": "c"}, '"chosen" is empty'),
    ({"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}, "expected the assistant's answer"),
])
def test_bad_rows(tmp_path, settings, row, message):
    data = write_rows(tmp_path / "bad.jsonl", [*PAIRS, row])
    done = run(*train_arguments(tmp_path, **{**settings, "datasets": [data]}), expect=3)
    assert f"bad.jsonl:{len(PAIRS) + 1}: " in done.stderr and message in done.stderr


def test_instructions_are_not_pairs(tmp_path, settings):
    done = run(*train_arguments(tmp_path, **{**settings, "stage": "sft"}), expect=3)
    assert "a preference stage, such as 'stage: dpo'" in done.stderr


@pytest.mark.parametrize("changes, message", [
    ({"train_on_prompt": True}, "compares answers, expected false"),
    ({"loss_type": "robust"}, "expected above 0 and below 0.5"),
    ({"stage": "ipo", "label_smoothing": 0.1}, "label_smoothing is no part of this loss"),
])
def test_settings_that_exclude_each_other(tmp_path, settings, changes, message):
    assert message in run(*train_arguments(tmp_path, **{**settings, **changes}), expect=2).stderr


def test_a_pair_without_room_is_dropped_and_counted(tmp_path, settings):
    long = {"prompt": toy.rows(1, seed=3, low=60, high=61)[0]["prompt"], "chosen": " a b", "rejected": " c"}
    data = write_rows(tmp_path / "long.jsonl", [*PAIRS, long])
    for overlength in ("truncate", "drop"):
        done = run(*train_arguments(tmp_path / overlength, overlength=overlength, max_length=120,
                                    **{**settings, "datasets": [data]}))
        assert "1 too long, dropped" in done.stderr


def test_both_ways_of_computing_a_prompt(tmp_path, settings):
    lines = [metrics(train(tmp_path / value, prefix_sharing=value, **settings)) for value in ("on", "off")]
    for once, apart in zip(*lines, strict=True):
        assert once["loss"] == pytest.approx(apart["loss"], rel=1e-5)
        assert once["grad_norm"] == pytest.approx(apart["grad_norm"], rel=1e-4)


def test_micro_batches_are_one_step(tmp_path, settings):
    settings.update(max_steps=1, max_grad_norm=0, shuffle=False)
    whole, split = (metrics(train(tmp_path / str(size), **{**settings, "per_device_train_batch_size": size,
                                                           "gradient_accumulation_steps": 4 // size}))[0] for size in (4, 1))
    for name in ("loss", "grad_norm", "logps/chosen", "logps/rejected"):
        assert whole[name] == pytest.approx(split[name], rel=1e-5)


def test_reference_adapter(tmp_path, settings):
    """With the trained adapter as reference of itself, rewards begin at nothing; with the base, they do not."""
    first = train(tmp_path / "first", **{**settings, "learning_rate": 1e-2})
    again = {**settings, "max_steps": 1, "init_lora_weights": first}
    own = metrics(train(tmp_path / "own", reference_adapter=first, **again))[0]
    step_0 = metrics(train(tmp_path / "step0", **again))[0]
    assert own["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert own["loss"] == pytest.approx(step_0["loss"], rel=1e-6)
    other = metrics(train(tmp_path / "other", **{**settings, "max_steps": 1}, reference_adapter=first))[0]
    assert abs(other["rewards/margins"]) > 1e-3


def test_resumed_run_has_the_same_bytes(tmp_path, settings):
    whole = train(tmp_path / "whole", save_steps=3, **settings)
    part = train(tmp_path / "part", save_steps=3, **settings)
    for file in [*part.glob("adapter_model*"), part / "checkpoint-6"]:
        run_away(file)
    train(tmp_path / "part", "--resume", save_steps=3, **settings)
    assert snapshot(whole, WEIGHTS) == snapshot(part, WEIGHTS)
    assert json.loads((part / "checkpoint-6/trainer_state.json").read_text())["step"] == 6


def run_away(path):
    import shutil
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("more", [[], ["--generate"], ["--predictions", "-"]], ids=" ".join)
def test_eval_says_that_it_takes_no_pairs(settings, more):
    keys = {"model_name_or_path": settings["model_name_or_path"], "template": "none", "stage": "dpo"}
    done = run("eval", f"eval_datasets=[{settings['datasets'][0]}]", *(f"{key}={value}" for key, value in keys.items()), *more, expect=2)
    assert "stage: dpo" in done.stderr and "stage=sft" in done.stderr
