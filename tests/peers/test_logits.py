"""Likelihoods of whole rows against transformers: every switch of the Llama family.

The summed cross entropy of a row sees every logit of every supervised position (through the
log-sum-exp), so it stands for the logits; float32, relative 1e-5."""

import json

import numpy
import peer
import pytest
import torch
import toy
from program import SHARED_DIR, predictions, write_rows
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

TOLERANCE = 1e-5

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

CONFIGURATIONS = {
    "plain": {},
    "no grouping": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "head_dim apart from hidden_size": {"head_dim": 16},
    "tied": {"tie_word_embeddings": True},
    "rope theta": {"rope_theta": 500000.0},
    "one layer": {"num_hidden_layers": 1},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "linear, old key": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "yarn with its options": {"rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.3}},
}


def rows_with_a_long_one():
    return [*toy.rows(6), *toy.rows(2, seed=1, low=30, high=40)]


def make_model(folder, **changes):
    """toy.make_model, with biases where the configuration has them."""
    toy.make_model(folder, **changes)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in list(tensors):
        attention, mlp = "self_attn" in name, ".mlp." in name
        if (attention and config.get("attention_bias")) or (mlp and config.get("mlp_bias")):
            bias = name.replace(".weight", ".bias")
            tensors[bias] = torch.randn(len(tensors[name]), generator=generator) * 0.2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def check_same(tmp_path, folder, rows, tolerance=TOLERANCE):
    ours = predictions(tmp_path, folder, write_rows(tmp_path / "rows.jsonl", rows))["base"]
    encoded = peer.encode(folder, rows)
    assert [row["supervised_tokens"] for row in ours] == [sum(supervised) for _, supervised in encoded]
    theirs = peer.nlls(peer.load(folder), encoded)
    assert [row["nll"] for row in ours] == pytest.approx(theirs, rel=tolerance)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration(tmp_path, name):
    check_same(tmp_path, make_model(tmp_path / "model", **CONFIGURATIONS[name]), rows_with_a_long_one())


@pytest.mark.parametrize("name", ["rope theta", "linear", "llama3", "yarn"])
def test_new_spelling_of_rope(tmp_path, name):
    changes = CONFIGURATIONS[name]
    folder = make_model(tmp_path / "model", **changes)
    rope = {"rope_type": "default", "rope_theta": changes.get("rope_theta", 10000.0), **changes.get("rope_scaling", {})}
    peer.change_config(folder, rope_theta=None, rope_scaling=None, rope_parameters=rope, torch_dtype=None,
                       dtype="float32")
    check_same(tmp_path, folder, rows_with_a_long_one())


def test_dynamic_rope_uses_each_rows_own_length(tmp_path):
    """Above the original length the frequencies follow the row's length, whatever came before it."""
    folder = make_model(tmp_path / "model", max_position_embeddings=64,
                        rope_scaling={"rope_type": "dynamic", "factor": 8.0})
    rows = [*toy.rows(2), *toy.rows(2, seed=1, low=20, high=25), *toy.rows(2, seed=2, low=12, high=16)]
    encoded = peer.encode(folder, rows)
    assert max(len(ids) for ids, _ in encoded) > 64 > min(len(ids) for ids, _ in encoded)
    ours = predictions(tmp_path, folder, write_rows(tmp_path / "rows.jsonl", rows))["base"]
    theirs = [peer.nlls(peer.load(folder), [row])[0] for row in encoded]  # a fresh model each: theirs remembers
    assert [row["nll"] for row in ours] == pytest.approx(theirs, rel=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_type(tmp_path, dtype):
    """16-bit files computed in float32: the same numbers as transformers reads from them."""
    folder = make_model(tmp_path / "model")
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    peer.change_config(folder, torch_dtype=str(dtype).removeprefix("torch."))
    check_same(tmp_path, folder, rows_with_a_long_one())


def test_sharded(tmp_path):
    folder = make_model(tmp_path / "model")
    model = peer.load(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()
    check_same(tmp_path, folder, rows_with_a_long_one())


def test_tied_embeddings_under_the_heads_name(tmp_path):
    folder = make_model(tmp_path / "model", tie_word_embeddings=True)
    plain = predictions(tmp_path, folder, write_rows(tmp_path / "rows.jsonl", toy.rows(4)))["base"]
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    renamed = predictions(tmp_path, folder, tmp_path / "rows.jsonl")["base"]
    assert [row["nll"] for row in plain] == [row["nll"] for row in renamed]


def test_saved_by_transformers(tmp_path):
    """Whatever transformers of today writes into config.json, it is read."""
    folder = make_model(tmp_path / "model", rope_scaling=LLAMA3)
    peer.load(folder).save_pretrained(folder)
    check_same(tmp_path, folder, rows_with_a_long_one())


def test_peft_adapter(tmp_path, model):
    rows = toy.rows(6)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    encoded = peer.encode(model, rows)
    for name, options in {"plain": {}, "rslora": {"use_rslora": True}, "linears": {"target_modules": "all-linear"},
                          "one layer": {"layers_to_transform": [1]}}.items():
        adapter = peer.make_adapter(tmp_path / name, model, **options)
        ours = predictions(tmp_path, model, data, adapter=adapter)["adapter"]
        theirs = peer.nlls(peer.load_with_adapter(model, adapter), encoded)
        assert [row["nll"] for row in ours] == pytest.approx(theirs, rel=TOLERANCE), name


def test_real_model(tmp_path, real_model):
    """Rows of text on a trained checkpoint, tokenized by the model's own fast tokenizer."""
    texts = [("Once upon a time, there was a little girl", " named Lily. She loved to play outside in the park."),
             ("The boy saw a big, red ball.", " He said: \"Can I play with it?\" It was 12 o'clock.")]
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in texts]
    ours = predictions(tmp_path, real_model, write_rows(tmp_path / "rows.jsonl", rows))["base"]
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    encoded = []
    for prompt, completion in texts:
        plain = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
        ids = [tokenizer.bos_token_id, *plain["input_ids"], tokenizer.eos_token_id]
        encoded.append((ids, [False, *(end > len(prompt) for _, end in plain["offset_mapping"]), True]))
    assert [row["supervised_tokens"] for row in ours] == [sum(supervised) for _, supervised in encoded]
    assert [row["nll"] for row in ours] == pytest.approx(peer.nlls(peer.load(real_model), encoded), rel=TOLERANCE)


def test_real_model_reference_value(tmp_path, real_model):
    """The stored mean cross entropy of the reference text: all of it is supervised."""
    golden = json.loads((SHARED_DIR / "data/golden/models.json").read_text())[real_model.name]
    data = write_rows(tmp_path / "rows.jsonl", [{"text": golden["text"]}])
    row = predictions(tmp_path, real_model, data)["base"][0]
    theirs = golden["mean_ce"] * (len(golden["ids"]) - 1)
    extra = row["supervised_tokens"] - (len(golden["ids"]) - 1)
    if extra == 1:  # </s> ends a text row: its own cost is not in the reference
        ids = golden["ids"] + [json.loads((real_model / "config.json").read_text())["eos_token_id"]]
        model = peer.load(real_model)
        with torch.no_grad():
            theirs += -model(torch.tensor([ids])).logits[0, -2].log_softmax(-1)[ids[-1]].item()
    assert extra in (0, 1)
    assert row["nll"] == pytest.approx(theirs, rel=TOLERANCE)
    assert numpy.isfinite(row["nll"])
