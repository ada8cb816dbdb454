"""Stage grpo beside TRL: the answers that the program sampled and the rewards they got, replayed in TRL's trainer."""

import json
import sys

import peer
import pytest
import toy
import torch
from program import metrics, train, write_rows
from safetensors.torch import load_file

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

PROMPTS, GENERATIONS, LENGTH, RATE = 2, 4, 12, 0.08
# Rewards of any kind will do: here the tokens decide.
REWARD = """
import json, sys
lines = [json.loads(line) for line in sys.stdin]
with open(sys.argv[1], "a") as log:
    log.write(json.dumps(lines) + "\\n")
for line in lines:
    print(sum(line["completion_ids"]) % 7 / 3)
"""


def our_run(folder, model, adapter, data, steps, **settings):
    """The run's folder and, for each round, the rows that the reward command read."""
    folder.mkdir(parents=True)
    (folder / "reward.py").write_text(REWARD)
    log = folder / "rounds.jsonl"
    out = train(folder, model_name_or_path=model, datasets=[data], template="none", shuffle=False, stage="grpo",
                init_lora_weights=adapter, learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=1e9,
                num_generations=GENERATIONS, max_completion_length=LENGTH, max_steps=steps, logging_steps=1,
                reward_funcs=[f"command:{sys.executable} {folder / 'reward.py'} {log}"],
                **{"per_device_train_batch_size": PROMPTS, **settings})
    return out, [json.loads(line) for line in log.read_text().splitlines()]


def trl_run(folder, model, adapter, rows, rounds, steps, **settings):
    """TRL's log lines and the trained parameters, over the same answers."""
    from transformers import AutoTokenizer
    waiting = iter(rounds)
    prompt_ids = {row["prompt"]: ids[:supervised.index(True)] for row, (ids, supervised) in
                  zip(rows, peer.encode(model, [{**row, "completion": " x"} for row in rows]), strict=True)}

    class Replayed(trl.GRPOTrainer):
        def _tokenize_prompts(self, prompts):
            return [prompt_ids[prompt] for prompt in prompts], None, {}

        def _generate_single_turn(self, prompts, *_, **__):
            answers = next(waiting)
            assert [prompt_ids[answer["prompt"]] for answer in answers] == prompts
            return [answer["completion_ids"] for answer in answers], None

    def reward(completion_ids, **_):
        return [sum(ids) % 7 / 3 for ids in completion_ids]

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    config = trl.GRPOConfig(
        output_dir=str(folder), max_steps=steps, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0,
        max_grad_norm=1e9, logging_steps=1, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
        save_strategy="no", disable_tqdm=True, optim="sgd", num_generations=GENERATIONS, max_completion_length=LENGTH,
        shuffle_dataset=False, **settings)
    policy = peer.load_with_adapter(model, adapter, trainable=True)
    trainer = Replayed(model=policy, reward_funcs=[reward], args=config, processing_class=tokenizer,
                       train_dataset=datasets.Dataset.from_list([{"prompt": row["prompt"]} for row in rows]))
    trainer.train()
    assert next(waiting, None) is None
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    return lines, {name: value.detach() for name, value in peer.trainable(trainer.model).items() if ".ref." not in name}


CASES = {
    "dapo": ({}, {}),
    "dapo, kl, temperature": ({"beta": 0.2, "temperature": 1.4}, {"beta": 0.2, "temperature": 1.4}),
    "grpo, kl, iterations": ({"grpo_loss_type": "grpo", "beta": 0.2, "num_iterations": 2},
                             {"loss_type": "grpo", "beta": 0.2, "num_iterations": 2}),
    "grpo, micro-batches": ({"grpo_loss_type": "grpo", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
                            {"loss_type": "grpo", "per_device_train_batch_size": GENERATIONS, "gradient_accumulation_steps": 2}),
    "dapo, micro-batches, iterations": (
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "num_iterations": 2, "beta": 0.1},
        {"per_device_train_batch_size": GENERATIONS, "gradient_accumulation_steps": 2, "num_iterations": 2, "beta": 0.1}),
    "bnpo, batch, bounds": ({"grpo_loss_type": "bnpo", "scale_rewards": "batch", "num_iterations": 3, "epsilon": 0.05, "epsilon_high": 0.1},
                            {"loss_type": "bnpo", "scale_rewards": "batch", "num_iterations": 3, "epsilon": 0.05, "epsilon_high": 0.1}),
    "dr_grpo, unscaled, kl": ({"grpo_loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.05, "temperature": 0.9, "num_iterations": 2},
                              {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.05, "temperature": 0.9, "num_iterations": 2}),
}
NAMES = ["loss", "grad_norm", "reward", "reward_std", "completions/mean_length", "completions/min_length",
         "completions/max_length", "completions/clipped_ratio", "frac_reward_zero_std"]
CLIPPED = ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"]


@pytest.mark.parametrize("name", CASES)
def test_steps_of_trl(tmp_path, model, name):
    ours, theirs = CASES[name]
    steps = 6
    rows = toy.rows(2 * PROMPTS, seed=21)
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    out, rounds = our_run(tmp_path / "ours", model, adapter, write_rows(tmp_path / "rows.jsonl", rows), steps, **ours)
    mine = metrics(out)
    lines, parameters = trl_run(tmp_path / "trl", model, adapter, rows, rounds, steps,
                                **{"per_device_train_batch_size": PROMPTS * GENERATIONS, "beta": 0.0, "temperature": 1.0,
                                   "loss_type": "dapo", **theirs})
    assert len(rounds) == steps // ours.get("num_iterations", 1)
    # TRL logs the mean of its micro-batches' means, and shuffles what is in them.
    by_token = [] if "gradient_accumulation_steps" in ours else (["kl"] if "beta" in ours else []) + CLIPPED
    for key in NAMES + by_token:
        pairs = [(line[key], other[key]) for line, other in zip(mine, lines, strict=True) if key in other]
        assert len(pairs) >= len(rounds), key
        assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], rel=1e-4, abs=2e-6), key
    assert max(line["reward_std"] for line in mine) > 0.1
    if "epsilon" in ours:
        assert max(line["clip_ratio/region_mean"] for line in mine) > 0
    if "num_iterations" in ours:
        assert max(abs(line["loss"]) for line in mine) > 1e-3
    before, after = load_file(adapter / "adapter_model.safetensors"), load_file(out / "adapter_model.safetensors")
    assert after.keys() == parameters.keys()
    for key, value in parameters.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    assert max((after[key] - before[key]).abs().max() for key in after) > 1e-2


def test_reference_is_zero_away_at_first(tmp_path, model):
    """The reference is the adapter that the run goes on from, not the base."""
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    out, _ = our_run(tmp_path / "ours", model, adapter, write_rows(tmp_path / "rows.jsonl", toy.rows(4)), 3, beta=0.1)
    kls = [line["kl"] for line in metrics(out)]
    assert kls[0] == pytest.approx(0, abs=1e-6) and kls[-1] > 1e-4
