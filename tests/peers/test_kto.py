"""Stage kto beside TRL's KTOTrainer: the same rows from the same adapter, thirty steps."""

import json

import peer
import pytest
import toy
import trl_peer
from program import SHARED_DIR, write_rows

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

NAMES = ["kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"]


def toy_rows(labels):
    return [{**row, "label": label} for row, label in zip(toy.rows(len(labels), seed=11), labels, strict=True)]


def trl_run(monkeypatch, folder, model, adapter, rows, **settings):
    """TRL tokenizes nothing here: it gets the tokens that the program cuts, and does the rest, the pairing too."""
    tokens = {}
    for row in rows:
        [(ids, supervised)] = peer.encode(model, [row])
        tokens[row["prompt"]] = ids[:supervised.index(True)]
        tokens[row["prompt"] + row["completion"] + "</s>"] = ids
    monkeypatch.setattr("trl.trainer.kto_trainer._tokenize", lambda _, text: {"input_ids": tokens[text]})
    config = trl.KTOConfig(max_length=None, **trl_peer.arguments(folder), **settings)
    policy = peer.load_with_adapter(model, adapter, trainable=True)
    trainer = trl.KTOTrainer(model=policy, args=config, train_dataset=datasets.Dataset.from_list(rows),
                             processing_class=trl_peer.tokenizer_of(model))
    return trl_peer.history(trainer), policy


MIXED = [True, False, False, True] * 4
# Batches of one kind alone, and a last batch of two rows.
BLOCKS = [True] * 4 + [False] * 4 + [True, False, True, True, False, True]
CASES = {
    "plain": (MIXED, {}),
    "weights": (MIXED, {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}),
    "blocks": (BLOCKS, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_curves_of_trl(tmp_path, model, monkeypatch, name):
    labels, settings = CASES[name]
    rows = toy_rows(labels)
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    theirs, policy = trl_run(monkeypatch, tmp_path / "trl", model, adapter, rows, **settings)
    mine, out = trl_peer.our_run(tmp_path / "ours", model, adapter, write_rows(tmp_path / "rows.jsonl", rows), stage="kto", **settings)
    trl_peer.same_curves(mine, theirs, NAMES)
    trl_peer.same_parameters(out, policy)
    assert mine[-1]["loss"] < mine[0]["loss"]
    assert any(line["kl"] > 0 for line in mine) and all(abs(mine[0].get(name, 0)) == pytest.approx(0, abs=1e-5) for name in NAMES[:4])


def test_real_model(tmp_path, real_model, monkeypatch):
    file = SHARED_DIR / "data/instructions/llamafactory/dpo_en_demo.json"
    if not file.exists() or not (real_model / "tokenizer.model").exists():
        pytest.skip("needs dpo_en_demo.json and a sentencepiece tokenizer")
    rows = []
    for row in json.loads(file.read_text())[:16]:
        prompt = row["conversations"][0]["value"][:80].strip() + " ="
        rows += [{"prompt": prompt, "completion": " " + row[key]["value"][:60].strip(), "label": key == "chosen"}
                 for key in ("chosen", "rejected")]
    adapter = peer.make_adapter(tmp_path / "adapter", real_model)
    theirs, policy = trl_run(monkeypatch, tmp_path / "trl", real_model, adapter, rows)
    mine, out = trl_peer.our_run(tmp_path / "ours", real_model, adapter, write_rows(tmp_path / "rows.jsonl", rows), stage="kto")
    trl_peer.same_curves(mine, theirs, NAMES)
    trl_peer.same_parameters(out, policy)
