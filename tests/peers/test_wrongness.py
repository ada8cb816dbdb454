"""What is wrong in silence elsewhere, with every family: losses that depend on company, added tokens, tied weights."""

import json
import shutil

import family
import peer
import pytest
import toy
import torch
from program import metrics, predictions, run, train, write_rows
from safetensors.torch import load_file
from test_families import nll

# The auxiliary loss of experts is a mean over the batch, as the peers have it: it does depend on company.
EVERY = [name for name in [*family.FAMILIES, *family.SWITCHES] if "auxiliary" not in name]
ROWS = toy.rows(6, seed=11, low=3, high=25)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", ROWS)


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_does_not_depend_on_company(tmp_path, rows_file, name):
    """Evaluation in batches of any size, and a step in any split, are the same numbers to rounding."""
    model = family.make(tmp_path / "model", name)
    fours, alone = (nll(predictions(tmp_path, model, rows_file, f"per_device_eval_batch_size={size}")["base"])
                    for size in (4, 1))  # the second batch is a part of one
    assert fours == pytest.approx(alone, rel=1e-5)
    keys = {"model_name_or_path": model, "datasets": [rows_file], "template": "none", "shuffle": False, "lora_rank": 2,
            "max_steps": 2, "learning_rate": 1e-2, "optim": "sgd"}
    steps = [metrics(train(tmp_path / str(size), **keys, per_device_train_batch_size=size,
                           gradient_accumulation_steps=6 // size)) for size in (6, 1)]
    for key in ("loss", "grad_norm"):
        whole, split = ([line[key] for line in lines] for lines in steps)
        assert split == pytest.approx(whole, rel=2e-4), key


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A model to whose vocabulary transformers added tokens: five more, an odd number of rows in all."""
    folder = family.make(tmp_path_factory.mktemp("grown") / "model", "llama")
    model = peer.load(folder)
    model.resize_token_embeddings(405, mean_resizing=False)
    torch.manual_seed(3)
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        weight.data[400:] = 0.3 * torch.randn(5, weight.shape[1])
    model.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(400 + i): {"content": f"<added{i}>", "lstrip": False, "normalized": False, "rstrip": False,
                                                     "single_word": False, "special": True} for i in range(5)}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("saved", [[], ["embed_tokens", "lm_head"]], ids=["adapter", "embeddings too"])
def test_added_tokens_are_trained_saved_and_merged(tmp_path, grown, saved):
    """Their ids are used, their rows are in what is saved, and PEFT and transformers open both results."""
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"pod <added{i}>", "completion": f" node<added{(i + 1) % 5}>"} for i in range(5)])
    out = train(tmp_path, model_name_or_path=grown, datasets=[data], template="none", lora_rank=2, max_steps=8,
                learning_rate=2e-2, per_device_train_batch_size=5, modules_to_save=saved)
    rows = predictions(tmp_path, grown, data, adapter=out)["adapter"]
    ids = [encode_added(grown, i, row["supervised_tokens"]) for i, row in enumerate(rows)]
    ours = nll(rows)
    assert ours == pytest.approx(peer.nlls(peer.load_with_adapter(grown, out), ids), rel=1e-5)
    run("merge", "--model", grown, "--adapter", out, "--output", tmp_path / "merged")
    assert nll(predictions(tmp_path, tmp_path / "merged", data)["base"]) == pytest.approx(ours, rel=1e-5)
    merged = load_file(tmp_path / "merged/model.safetensors")
    assert merged["model.embed_tokens.weight"].shape[0] == merged["lm_head.weight"].shape[0] == 405
    base = load_file(grown / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"]) == (not saved)


def encode_added(folder, i, supervised):
    """<s> pod <added i> are the prompt; node <added i + 1> </s> are learned. (Between them the legacy tokenizer puts a
    token of no text, which is not.)"""
    text = f"pod <added{i}> node<added{(i + 1) % 5}>"
    done = run("inspect", "tokens", "--model", folder, "--add-special-tokens", stdin=json.dumps(text) + "\n")
    ids = [*json.loads(done.stdout)["ids"], 2]
    assert ids[0] == 1 and ids[-2] == 400 + (i + 1) % 5
    assert ids[-supervised - 2] == 400 + i
    return ids, [t >= len(ids) - supervised for t in range(len(ids))]


def test_added_tokens_without_rows_are_refused(tmp_path, grown):
    """The tokenizer has more tokens than the model: named, and no reading beyond the embeddings."""
    small = family.make(tmp_path / "model", "llama")
    shutil.copy(grown / "tokenizer_config.json", small)
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "pod", "completion": " node"}, {"prompt": "pod", "completion": " <added3>"}])
    keys = ("template=none", "device=cpu")
    for arguments in (("train", f"model={small}", f"datasets={data}", "max_steps=1", f"output_dir={tmp_path / 'out'}", *keys),
                      ("eval", "--model", small, "--data", data, *keys),
                      ("plan", f"model={small}", f"datasets={data}", *keys),
                      ("generate", "--model", small, "--prompt", "pod <added3>", *keys)):
        said = run(*arguments, expect=4).stderr
        assert "403" in said and "400 tokens" in said and "resize-vocab" in said, said
        assert arguments[0] == "generate" or "rows.jsonl:2: holds the token '<added3>'" in said, said


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "phi"])
def test_resize_vocab_is_what_transformers_opens(tmp_path, grown, name):
    """Tied and untied heads, a head with a bias: old rows as they were, new ones their mean, and nothing else changed."""
    base = family.make(tmp_path / "base", name)
    config = json.loads((grown / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    said = run("resize-vocab", "--model", base, "--output", tmp_path / "larger").stdout
    before = json.loads((base / "config.json").read_text())["vocab_size"]
    assert f"405 tokens instead of {before}" in said
    modules = {"llama": "embed_tokens, lm_head", "gemma": "embed_tokens", "gpt2": "wte", "phi": "embed_tokens, lm_head"}[name]
    assert f"modules_to_save: [{modules}]" in said
    old, new = peer.load(base), peer.load(tmp_path / "larger")
    assert new.config.vocab_size == 405
    for key, tensor in new.state_dict().items():
        rows = old.state_dict()[key]
        if tensor.shape == rows.shape:
            assert torch.equal(tensor, rows), key
        else:
            assert tensor.shape[0] == 405 and torch.equal(tensor[:before], rows), key
            assert torch.allclose(tensor[before:], rows.mean(0, keepdim=True).expand_as(tensor[before:]), atol=1e-6), key
    ids = torch.tensor([[1, 5, 9, 300]])
    assert torch.equal(new(ids).logits[..., :before], old(ids).logits)


def test_a_resized_model_learns_its_tokens(tmp_path, grown):
    """From a base without rows to a merged model that knows them, in this program alone."""
    base = family.make(tmp_path / "base", "llama")
    shutil.copy(grown / "tokenizer_config.json", base)
    run("resize-vocab", "--model", base, "--output", tmp_path / "larger")
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "pod", "completion": " <added3>"}])
    out = train(tmp_path, model_name_or_path=tmp_path / "larger", datasets=[data], template="none", lora_rank=2, max_steps=30,
                learning_rate=5e-2, modules_to_save=["embed_tokens", "lm_head"])
    run("merge", "--model", tmp_path / "larger", "--adapter", out, "--output", tmp_path / "merged")
    before, after = (nll(predictions(tmp_path, tmp_path / name, data)["base"])[0] for name in ("larger", "merged"))
    assert after < 0.3 * before
    said = run("resize-vocab", "--model", tmp_path / "larger", "--output", tmp_path / "again", expect=2).stderr
    assert "there is nothing to add" in said
    assert "already holds" in run("resize-vocab", "--model", base, "--output", tmp_path / "larger", expect=2).stderr


def test_an_nf4_checkpoint_is_resized_in_nf4(tmp_path, grown):
    """Every number of four bits as it was; embeddings and head alone are larger."""
    base = family.make(tmp_path / "base", "llama")
    shutil.copy(grown / "tokenizer_config.json", base)
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "pod", "completion": " node"}])
    adapter = train(tmp_path, model_name_or_path=base, datasets=[data], template="none", quantization="nf4", max_steps=1)
    run("merge", "--model", base, "--adapter", adapter, "--output", tmp_path / "nf4", "--requantize")
    run("resize-vocab", "--model", tmp_path / "nf4", "--output", tmp_path / "larger")
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("nf4", "larger"))
    assert old.keys() == new.keys() and any("absmax" in key for key in old)
    for key, tensor in new.items():
        resized = key in ("model.embed_tokens.weight", "lm_head.weight")
        assert len(tensor) == 405 if resized else torch.equal(tensor, old[key]), key
    nlls = [nll(predictions(tmp_path, tmp_path / name, data)["base"])[0] for name in ("nf4", "larger")]
    assert nlls[1] == pytest.approx(nlls[0], abs=0.1)  # five more tokens in every sum
