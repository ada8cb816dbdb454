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


def evaluate(settings, *more, expect=0):
    keys = {"model_name_or_path": settings["model_name_or_path"], "template": "none", "stage": "dpo"}
    return run("eval", f"eval_datasets=[{settings['datasets'][0]}]", *(f"{key}={value}" for key, value in keys.items()), *map(str, more), expect=expect)


def test_eval_takes_pairs(tmp_path, settings):
    out = train(tmp_path, **{**settings, "max_steps": 20})
    done = evaluate(settings, "--adapter", out, "--json", tmp_path / "scores.json", "--predictions", tmp_path / "predictions.jsonl")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["stage"] == "dpo" and scores["reference"] == "base"
    base, adapter = scores["results"]
    assert base["variant"] == "base" and base["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert [base[f"rewards/{name}"] for name in ("chosen", "rejected", "margins")] == [0, 0, 0] and "rewards/accuracies" not in base
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["base"] * 12 + ["adapter"] * 12
    for result, rows in ((base, lines[:12]), (adapter, lines[12:])):
        likelier = sum(row["chosen_log_probability"] > row["rejected_log_probability"] for row in rows) / 12
        assert result["logps/accuracies"] == pytest.approx(likelier)
        assert result["rewards/margins"] == pytest.approx(sum(row["chosen_reward"] - row["rejected_reward"] for row in rows) / 12)
    assert adapter["rewards/accuracies"] == pytest.approx(sum(row["chosen_reward"] > row["rejected_reward"] for row in lines[12:]) / 12)
    assert adapter["rewards/accuracies"] > 0.8 and adapter["rewards/margins"] > 0.01 and adapter["loss"] < base["loss"]
    assert (lines[0]["line"], lines[0]["chosen"], lines[0]["rejected"]) == (1, PAIRS[0]["chosen"], PAIRS[0]["rejected"])
    assert "chosen likelier" in done.stdout and "rewards relative to the base" in done.stdout
    # Against the adapter itself it is the base that has lost.
    evaluate(settings, "--adapter", out, f"reference_adapter={out}", "--json", tmp_path / "scores.json")
    base, adapter = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert adapter["rewards/margins"] == 0 and base["rewards/margins"] < -0.01


@pytest.mark.parametrize("stage", ["ipo", "orpo", "simpo"])
def test_eval_of_every_stage_of_pairs(tmp_path, settings, stage):
    lines = metrics(train(tmp_path, eval_datasets=settings["datasets"], **{**settings, "stage": stage}), "eval_loss")
    evaluate(settings, "--adapter", tmp_path / "out", f"stage={stage}", "--json", tmp_path / "scores.json")
    base, adapter = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert base["loss"] == pytest.approx(lines[0]["eval_loss"], rel=1e-5)
    assert adapter["loss"] == pytest.approx(lines[-1]["eval_loss"], rel=1e-5)


def test_eval_does_not_answer_pairs(settings):
    assert "--generate" in evaluate(settings, "--generate", expect=2).stderr


def test_kl_is_how_far_the_answers_have_moved(tmp_path, settings):
    lines = metrics(train(tmp_path, **settings))
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5)
    for line in lines:
        assert line["kl"] * 0.1 == pytest.approx((line["rewards/chosen"] + line["rewards/rejected"]) / 2, abs=1e-6)


def test_weighting_counts_likely_pairs_more(tmp_path, settings):
    plain, weighted = (metrics(train(tmp_path / str(value), use_weighting=value, **settings)) for value in (False, True))
    assert 0 < weighted[0]["loss"] < plain[0]["loss"]


LABELLED = [{"prompt": pair["prompt"], "completion": pair[answer], "label": answer == "chosen"}
            for pair in PAIRS for answer in ("chosen", "rejected")]


@pytest.fixture
def kto(settings, tmp_path):
    return {**settings, "stage": "kto", "datasets": [write_rows(tmp_path / "labelled.jsonl", LABELLED)]}


def test_kto(tmp_path, kto):
    out = train(tmp_path, eval_datasets=kto["datasets"], **{**kto, "max_steps": 20})
    lines, evals = metrics(out), metrics(out, "eval_loss")
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert evals[0]["eval_loss"] == pytest.approx(0.5, abs=1e-6) and evals[0]["eval_kl"] == pytest.approx(0, abs=1e-6)
    assert evals[-1]["eval_rewards/margins"] > 0.01 and evals[-1]["eval_loss"] < 0.5
    done = run("eval", "--model", kto["model_name_or_path"], "--adapter", out, "--data", kto["datasets"][0], "stage=kto", "template=none",
               "per_device_train_batch_size=4", "--json", tmp_path / "scores.json", "--predictions", tmp_path / "predictions.jsonl")
    base, adapter = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert base["loss"] == pytest.approx(0.5) and adapter["loss"] == pytest.approx(evals[-1]["eval_loss"], rel=1e-4)
    first = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    assert first["label"] is True and first["completion"] == LABELLED[0]["completion"]
    assert "KL to the reference" in done.stdout


def test_labelled_messages_are_the_same_data(tmp_path, kto):
    kto["template"] = "alpaca"
    rows = [{"prompt": [{"role": "user", "content": row["prompt"]}], "completion": [{"role": "assistant", "content": row["completion"]}],
             "label": int(row["label"])} for row in LABELLED]
    plain = train(tmp_path / "plain", **kto)
    other = train(tmp_path / "other", **{**kto, "datasets": [write_rows(tmp_path / "other.jsonl", rows)]})
    assert snapshot(plain, WEIGHTS) == snapshot(other, WEIGHTS)


@pytest.mark.parametrize("row, message", [
    ({"prompt": "a", "completion": "b"}, '"label" is missing'),
    ({"prompt": "a", "completion": "b", "label": "yes"}, "expected true (a desirable answer) or false"),
    ({"prompt": "a", "completion": "", "label": True}, '"completion" is empty'),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, '"label" is missing'),
])
def test_bad_labelled_rows(tmp_path, kto, row, message):
    data = write_rows(tmp_path / "bad.jsonl", [*LABELLED, row])
    done = run(*train_arguments(tmp_path, **{**kto, "datasets": [data]}), expect=3)
    assert f"bad.jsonl:{len(LABELLED) + 1}: " in done.stderr and message in done.stderr


def test_labelled_rows_are_no_instructions(tmp_path, kto):
    done = run(*train_arguments(tmp_path, **{**kto, "stage": "sft"}), expect=3)
    assert "'stage: kto'" in done.stderr


def test_kto_needs_another_row_in_the_batch(tmp_path, kto):
    done = run(*train_arguments(tmp_path, **{**kto, "per_device_train_batch_size": 1}), expect=2)
    assert "per_device_train_batch_size is 1" in done.stderr


def test_split_rows_keep_their_labels(tmp_path, kto):
    """With the labels of other rows, what is learned of one half would not hold for the other."""
    rows = [{**row, "completion": " yes, certainly" if row["label"] else " no, never"} for row in LABELLED]
    kto["datasets"] = [write_rows(tmp_path / "plain.jsonl", rows)]
    last = metrics(train(tmp_path, eval_split=0.25, **{**kto, "max_steps": 30, "learning_rate": 3e-3}), "eval_loss")[-1]
    assert last["eval_rewards/chosen"] > 0.1 and last["eval_rewards/rejected"] < -0.1


def test_the_reference_is_kept_between_runs(tmp_path, settings):
    cache = tmp_path / "cache"
    environment = {"FINETUNE_CACHE_DIR": str(cache)}
    first = run(*train_arguments(tmp_path / "first", **settings), env=environment)
    [kept] = cache.glob("reference-*.safetensors")
    second = run(*train_arguments(tmp_path / "second", **settings), env=environment)
    assert "kept by an earlier run" in second.stderr and "kept by an earlier run" not in first.stderr
    assert snapshot(tmp_path / "first/out", WEIGHTS) == snapshot(tmp_path / "second/out", WEIGHTS)
    # Another adapter to start from is another model.
    run(*train_arguments(tmp_path / "third", init_lora_weights=tmp_path / "first/out", **settings), env=environment)
    assert len(list(cache.glob("reference-*.safetensors"))) == 2
    kept.write_bytes(kept.read_bytes()[:-40])
    again = run(*train_arguments(tmp_path / "again", **settings), env=environment)
    assert "kept by an earlier run" not in again.stderr
    assert snapshot(tmp_path / "first/out", WEIGHTS) == snapshot(tmp_path / "again/out", WEIGHTS)


@pytest.fixture
def reward(tmp_path, settings):
    return train(tmp_path / "reward", **{**settings, "stage": "reward", "max_steps": 3})


def test_a_reward_adapter_writes_no_text(tmp_path, settings, reward):
    model = settings["model_name_or_path"]
    for arguments in (["generate", "--model", model, "--adapter", reward, "--prompt", "a"],
                      ["merge", "--model", model, "--adapter", reward, "--output", tmp_path / "merged"],
                      ["eval", "--model", model, "--adapter", reward, "--data", settings["datasets"][0], "stage=dpo", "template=none"]):
        done = run(*arguments, expect=4)
        assert "is the adapter of a reward model" in done.stderr
    done = run(*train_arguments(tmp_path / "dpo", init_lora_weights=reward, **settings), expect=2)
    assert "is the adapter of a reward model" in done.stderr


def test_reward_needs_a_head_and_a_place_for_it(tmp_path, settings, adapter):
    assert "no adapter" in evaluate(settings, "stage=reward", expect=2).stderr
    done = run("eval", "--model", settings["model_name_or_path"], "--adapter", adapter, "--data", settings["datasets"][0],
               "stage=reward", "template=none", expect=4)
    assert "no head that makes scores" in done.stderr
    done = run(*train_arguments(tmp_path, **{**settings, "stage": "reward", "method": "full"}), expect=2)
    assert "expected method: lora" in done.stderr


def test_reward_goes_on_and_resumes(tmp_path, settings, reward):
    settings = {**settings, "stage": "reward"}
    lines = metrics(train(tmp_path / "on", init_lora_weights=reward, eval_datasets=settings["datasets"], **settings), "eval_loss")
    assert lines[-1]["eval_accuracy"] >= lines[0]["eval_accuracy"] and lines[-1]["eval_loss"] < lines[0]["eval_loss"]
    whole = train(tmp_path / "whole", save_steps=3, **settings)
    part = train(tmp_path / "part", save_steps=3, **settings)
    for file in [*part.glob("adapter_model*"), part / "checkpoint-6"]:
        run_away(file)
    train(tmp_path / "part", "--resume", save_steps=3, **settings)
    assert snapshot(whole, WEIGHTS) == snapshot(part, WEIGHTS)


def test_bad_margin(tmp_path, settings):
    data = write_rows(tmp_path / "bad.jsonl", [*PAIRS, {**PAIRS[0], "margin": "wide"}])
    done = run(*train_arguments(tmp_path, **{**settings, "stage": "reward", "datasets": [data]}), expect=3)
    assert '"margin" is' in done.stderr and "expected a number" in done.stderr
