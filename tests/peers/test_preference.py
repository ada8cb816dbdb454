"""Preference stages beside TRL: the same pairs from the same adapter, thirty steps."""

import json
import types

import peer
import pytest
import toy
import torch
from program import SHARED_DIR, metrics, run, train, write_rows

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

STEPS, BATCH, RATE = 30, 4, 1e-3


def toy_pairs(count=16):
    return [{"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
            for a, b in zip(toy.rows(count, seed=11), toy.rows(count, seed=12), strict=True)]


def ids_of(model, pairs):
    """prompt_ids, chosen_ids, rejected_ids of each pair, as the program cuts the text."""
    result = []
    for pair in pairs:
        row, prompt = {}, []
        for answer in ("chosen", "rejected"):
            [(ids, supervised)] = peer.encode(model, [{"prompt": pair["prompt"], "completion": pair[answer]}])
            first = supervised.index(True)
            row[f"{answer}_ids"] = ids[first:]
            prompt.append(ids[:first])
        assert prompt[0] == prompt[1]
        result.append({"prompt_ids": prompt[0], **row})
    return result


def trl_history(folder, model, adapter, ids, **settings):
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer

    class InOrder(trl.DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    config = trl.DPOConfig(
        output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE,
        lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=1e9, logging_steps=1, bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", save_strategy="no", max_length=None, disable_tqdm=True,
        remove_unused_columns=False, **settings)
    policy = peer.load_with_adapter(model, adapter, trainable=True)
    trainer = InOrder(model=policy, args=config, train_dataset=datasets.Dataset.from_list(ids), processing_class=tokenizer)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def our_history(folder, model, adapter, data, **settings):
    return metrics(train(folder, model_name_or_path=model, datasets=[data], template="none", shuffle=False,
                         init_lora_weights=adapter, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0,
                         per_device_train_batch_size=BATCH, max_steps=STEPS, **settings))


NAMES = ["rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"]


def compare(mine, theirs, tolerance=1e-4):
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in theirs], rel=tolerance, abs=1e-5), name
    for name in NAMES:  # TRL rounds what it logs
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in theirs], rel=5e-4, abs=5e-4), name
    assert [line["rewards/accuracies"] for line in mine][1:] == [line["rewards/accuracies"] for line in theirs][1:]
    # Before the first step policy and reference are the same model.
    assert all(abs(mine[0][name]) < 1e-5 for name in NAMES[:3])


CASES = {
    "dpo": ({"stage": "dpo"}, {"loss_type": ["sigmoid"]}),
    "dpo, beta": ({"stage": "dpo", "beta": 0.4}, {"loss_type": ["sigmoid"], "beta": 0.4}),
    "hinge": ({"stage": "dpo", "loss_type": "hinge"}, {"loss_type": ["hinge"]}),
    "robust": ({"stage": "dpo", "loss_type": "robust", "label_smoothing": 0.1},
               {"loss_type": ["robust"], "label_smoothing": 0.1}),
    "ipo": ({"stage": "ipo"}, {"loss_type": ["ipo"]}),
    "weighted": ({"stage": "dpo", "use_weighting": True}, {"loss_type": ["sigmoid"], "use_weighting": True}),
    "weighted robust": ({"stage": "dpo", "use_weighting": True, "loss_type": "robust", "label_smoothing": 0.1},
                        {"loss_type": ["robust"], "label_smoothing": 0.1, "use_weighting": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_curves_of_trl(tmp_path, model, name):
    ours, settings = CASES[name]
    pairs = toy_pairs()
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    theirs = trl_history(tmp_path / "trl", model, adapter, ids_of(model, pairs), **settings)
    mine = our_history(tmp_path / "ours", model, adapter, write_rows(tmp_path / "pairs.jsonl", pairs), **ours)
    compare(mine, theirs)
    assert mine[-1]["loss"] != pytest.approx(mine[0]["loss"], rel=1e-2)


def test_real_model(tmp_path, real_model):
    file = SHARED_DIR / "data/instructions/llamafactory/dpo_en_demo.json"
    if not file.exists() or not (real_model / "tokenizer.model").exists():
        pytest.skip("needs dpo_en_demo.json and a sentencepiece tokenizer")
    pairs = [{"prompt": row["conversations"][0]["value"][:80].strip() + " =", "chosen": " " + row["chosen"]["value"][:60].strip(),
              "rejected": " " + row["rejected"]["value"][:60].strip()} for row in json.loads(file.read_text())[:60]]
    pairs = [pair for pair in pairs if pair["chosen"] != pair["rejected"]][:16]
    adapter = peer.make_adapter(tmp_path / "adapter", real_model)
    theirs = trl_history(tmp_path / "trl", real_model, adapter, ids_of(real_model, pairs), loss_type=["sigmoid"])
    compare(our_history(tmp_path / "ours", real_model, adapter, write_rows(tmp_path / "pairs.jsonl", pairs), stage="dpo"), theirs)


def test_eval_by_transformers_and_peft(tmp_path, model):
    """Log-probabilities of both answers under base and adapter, and what follows from them."""
    pairs = toy_pairs()
    adapter, data = peer.make_adapter(tmp_path / "adapter", model), write_rows(tmp_path / "pairs.jsonl", pairs)
    run("eval", "--model", model, "--adapter", adapter, "--data", data, "stage=dpo", "template=none", "dtype=float32", "device=cpu", "beta=0.3",
        "--json", tmp_path / "scores.json")
    sums = [torch.tensor([[-peer.nlls(policy, peer.encode(model, [{"prompt": pair["prompt"], "completion": pair[answer]}]))[0]
                           for answer in ("chosen", "rejected")] for pair in pairs], dtype=torch.float64)
            for policy in (peer.load(model), peer.load_with_adapter(model, adapter))]
    rewards = 0.3 * (sums[1] - sums[0])
    base, tuned = json.loads((tmp_path / "scores.json").read_text())["results"]
    for result, logps in ((base, sums[0]), (tuned, sums[1])):
        assert [result["logps/chosen"], result["logps/rejected"]] == pytest.approx(logps.mean(0).tolist(), rel=1e-5)
        assert result["logps/accuracies"] == (logps[:, 0] > logps[:, 1]).double().mean()
    assert tuned["rewards/margins"] == pytest.approx((rewards[:, 0] - rewards[:, 1]).mean().item(), rel=1e-4)
    assert tuned["rewards/accuracies"] == (rewards[:, 0] > rewards[:, 1]).double().mean()
    assert tuned["loss"] == pytest.approx(-torch.nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1]).mean().item(), rel=1e-4)


def mean_log_probabilities(model, ids):
    """Of the chosen and the rejected answers, [P] each."""
    return tuple(torch.stack([-peer.nll_sum(model, row["prompt_ids"] + row[answer],
                                            [False] * len(row["prompt_ids"]) + [True] * len(row[answer])) / len(row[answer])
                              for row in ids]) for answer in ("chosen_ids", "rejected_ids"))


def orpo_loss(chosen, rejected):
    """TRL's odds ratio beside the chosen answers' own likelihood, which TRL takes over the prompt too."""
    from trl.experimental.orpo import ORPOTrainer
    trainer = types.SimpleNamespace(beta=0.1, accelerator=types.SimpleNamespace(device="cpu"))
    return (-chosen - ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0]).mean()


def simpo_loss(chosen, rejected):
    from trl.experimental.cpo import CPOTrainer
    trainer = types.SimpleNamespace(beta=2.0, alpha=0.0, loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.05,
                                    accelerator=types.SimpleNamespace(device="cpu"))
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].mean()


@pytest.mark.parametrize("loss, settings", [
    (orpo_loss, {"stage": "orpo"}),
    (simpo_loss, {"stage": "simpo", "beta": 2.0, "simpo_gamma": 0.7, "label_smoothing": 0.05})], ids=["orpo", "simpo"])
def test_losses_without_a_reference(tmp_path, model, loss, settings):
    pairs = toy_pairs()
    adapter, ids = peer.make_adapter(tmp_path / "adapter", model), ids_of(model, pairs)
    policy = peer.load_with_adapter(model, adapter, trainable=True)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=RATE, weight_decay=0)
    expected = []
    for step in range(STEPS):
        value = loss(*mean_log_probabilities(policy, ids[step * BATCH % 16:][:BATCH]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        expected.append(value.item())
    mine = our_history(tmp_path / "ours", model, adapter, write_rows(tmp_path / "pairs.jsonl", pairs), **settings)
    assert [line["loss"] for line in mine] == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]
