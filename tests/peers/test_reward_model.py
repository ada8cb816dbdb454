"""Stage reward beside TRL's RewardTrainer, and its adapter opened by PEFT."""

import json

import peer
import pytest
import toy
import torch
import trl_peer
from peft import LoraConfig, PeftModel, get_peft_model
from program import SHARED_DIR, run, train, write_rows
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

NAMES = ["min_reward", "mean_reward", "max_reward", "accuracy", "margin"]


def toy_pairs(count=16, margins=False):
    pairs = [{"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
             for a, b in zip(toy.rows(count, seed=11), toy.rows(count, seed=12), strict=True)]
    if margins:
        for i, pair in enumerate(pairs):
            pair["margin"] = i % 3 / 4
    return pairs


def ids_of(model, pair):
    return [peer.encode(model, [{"prompt": pair["prompt"], "completion": pair[answer]}])[0][0] for answer in ("chosen", "rejected")]


def load_scorer(model):
    scorer = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32, attn_implementation="eager")
    scorer.config.pad_token_id = 0
    return scorer.eval()


def make_adapter(folder, model):
    torch.manual_seed(0)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                        modules_to_save=["score"])
    scorer = get_peft_model(load_scorer(model), config)
    with torch.no_grad():
        for name, parameter in scorer.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.1)
    scorer.save_pretrained(folder)
    return folder


def trl_run(folder, model, adapter, pairs, **settings):
    from torch.utils.data import SequentialSampler

    class InOrder(trl.RewardTrainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    rows = []
    for pair in pairs:
        chosen, rejected = ids_of(model, pair)
        rows.append({"chosen_ids": chosen, "rejected_ids": rejected, **({"margin": pair["margin"]} if "margin" in pair else {})})
    config = trl.RewardConfig(max_length=None, **trl_peer.arguments(folder), **settings)
    policy = PeftModel.from_pretrained(load_scorer(model), adapter, is_trainable=True)
    trainer = InOrder(model=policy, args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=trl_peer.tokenizer_of(model))
    return trl_peer.history(trainer), policy


@pytest.mark.parametrize("margins, settings", [(False, {}), (True, {"center_rewards_coefficient": 0.05})], ids=["plain", "margins and centre"])
def test_curves_of_trl(tmp_path, model, margins, settings):
    pairs = toy_pairs(margins=margins)
    adapter = make_adapter(tmp_path / "adapter", model)
    theirs, policy = trl_run(tmp_path / "trl", model, adapter, pairs, **settings)
    mine, out = trl_peer.our_run(tmp_path / "ours", model, adapter, write_rows(tmp_path / "pairs.jsonl", pairs), stage="reward", **settings)
    trl_peer.same_curves(mine, theirs, NAMES)
    trl_peer.same_parameters(out, policy)
    assert mine[-1]["loss"] < mine[0]["loss"]


def test_real_model(tmp_path, real_model):
    file = SHARED_DIR / "data/instructions/llamafactory/dpo_en_demo.json"
    if not file.exists() or not (real_model / "tokenizer.model").exists():
        pytest.skip("needs dpo_en_demo.json and a sentencepiece tokenizer")
    pairs = [{"prompt": row["conversations"][0]["value"][:80].strip() + " =", "chosen": " " + row["chosen"]["value"][:60].strip(),
              "rejected": " " + row["rejected"]["value"][:60].strip()} for row in json.loads(file.read_text())[:60]]
    pairs = [pair for pair in pairs if pair["chosen"] != pair["rejected"]][:16]
    adapter = make_adapter(tmp_path / "adapter", real_model)
    theirs, policy = trl_run(tmp_path / "trl", real_model, adapter, pairs)
    mine, out = trl_peer.our_run(tmp_path / "ours", real_model, adapter, write_rows(tmp_path / "pairs.jsonl", pairs), stage="reward")
    trl_peer.same_curves(mine, theirs, NAMES)
    trl_peer.same_parameters(out, policy)


@pytest.mark.parametrize("sharing", ["on", "off"])
def test_peft_gives_the_same_scores(tmp_path, model, sharing):
    """A fresh head; what the program's evaluation says of each answer is what transformers and PEFT say."""
    pairs = toy_pairs(8)
    data = write_rows(tmp_path / "pairs.jsonl", pairs)
    out = train(tmp_path / "run", model_name_or_path=model, datasets=[data], template="none", stage="reward", learning_rate=1e-2,
                max_steps=8, per_device_train_batch_size=4, target_modules="all-linear", prefix_sharing=sharing)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["modules_to_save"] == ["score"]
    assert "base_model.model.score.weight" in load_file(out / "adapter_model.safetensors")
    scorer = PeftModel.from_pretrained(load_scorer(model), out).eval()
    predictions = tmp_path / "predictions.jsonl"
    done = run("eval", "--model", model, "--adapter", out, "--data", data, "--predictions", predictions, "--json", tmp_path / "scores.json",
               "stage=reward", "template=none", "dtype=float32", "device=cpu")
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert len(lines) == len(pairs)
    for pair, line in zip(pairs, lines, strict=True):
        with torch.no_grad():
            expected = [scorer(input_ids=torch.tensor([ids])).logits.item() for ids in ids_of(model, pair)]
        assert [line["chosen_score"], line["rejected_score"]] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    [result] = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert result["variant"] == "adapter" and result["accuracy"] == 1.0 and result["margin"] > 0
    assert "chosen preferred" in done.stdout and "100.0 %" in done.stdout
