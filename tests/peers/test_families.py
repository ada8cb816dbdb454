"""Every model family against transformers and PEFT, on random small models that exercise every switch.

A new family is one function in src/model and one row in tests/support/family.py."""

import shutil

import family
import peer
import pytest
import toy
import torch
from program import metrics, predictions, run, train, write_rows
from safetensors.torch import load_file, save_file

EVERY = [*family.FAMILIES, *family.SWITCHES]
ROWS = [*toy.rows(3, seed=3), *toy.rows(3, seed=4, low=20, high=30)]
FEW = toy.rows(4, seed=5, low=6, high=14)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """name -> folder, each made once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = family.make(tmp_path_factory.mktemp("family") / "model", name)
        return made[name]
    return make


@pytest.fixture(scope="module")
def rows_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    return write_rows(folder / "long.jsonl", ROWS), write_rows(folder / "few.jsonl", FEW)


def nll(rows):
    return [row["nll"] for row in rows]


@pytest.mark.parametrize("name", EVERY)
def test_likelihoods(tmp_path, models, rows_files, name):
    """Rows longer than every window and than the original length of scaled angles."""
    model = models(name)
    encoded = peer.encode(model, ROWS)
    assert max(len(ids) for ids, _ in encoded) > 150
    theirs = [peer.nlls(peer.load(model), [row])[0] for row in encoded]  # a fresh model a row: some remember lengths
    assert nll(predictions(tmp_path, model, rows_files[0])["base"]) == pytest.approx(theirs, rel=1e-5)


def peer_loss(model, encoded):
    """As transformers computes it with output_router_logits: one batch, so the auxiliary loss sees all rows."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
    loss = peer.mean_loss(model, encoded)
    config = model.config
    if not getattr(config, "output_router_logits", False):
        return loss
    logits = [model(torch.tensor([ids]), output_router_logits=True).router_logits for ids, _ in encoded]
    by_layer = tuple(torch.cat(parts) for parts in zip(*logits, strict=True))
    auxiliary = load_balancing_loss_func(by_layer, config.num_local_experts, config.num_experts_per_tok)
    return loss + config.router_aux_loss_coef * auxiliary


@pytest.mark.parametrize("name", EVERY)
def test_adapter_gradients(tmp_path, models, rows_files, name):
    model, rate = models(name), 1000.0
    adapter = peer.make_adapter(tmp_path / "adapter", model, target_modules=family.targets(name))
    out = train(tmp_path, model_name_or_path=model, datasets=[rows_files[1]], template="none", shuffle=False,
                init_lora_weights=adapter, optim="sgd", learning_rate=rate, max_steps=1, max_grad_norm=0,
                lr_scheduler_type="constant", per_device_train_batch_size=4)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, out))
    theirs = peer.load_with_adapter(model, adapter, trainable=True)
    loss = peer_loss(theirs, peer.encode(model, FEW))
    loss.backward()
    assert metrics(out)[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    parameters = peer.trainable(theirs)
    assert before.keys() == after.keys() == parameters.keys()
    for key, parameter in parameters.items():
        difference = ((before[key] - after[key]) / rate - parameter.grad).norm() / parameter.grad.norm()
        assert difference < 1e-4, f"{key}: {difference:.2e}"


@pytest.mark.parametrize("name", family.FAMILIES)
def test_saved_and_merged(tmp_path, models, rows_files, name):
    """An adapter on all linears, trained here: PEFT opens it, and transformers the merged folder, with equal results."""
    model = models(name)
    # PEFT 0.21 opens adapters of experts for mixtral and qwen3_moe; for qwen2_moe its table of conversions has no entry.
    linears = family.ATTENTION if name == "qwen2_moe" else "all-linear"
    out = train(tmp_path, model_name_or_path=model, datasets=[rows_files[1]], template="none", lora_rank=3,
                target_modules=linears, max_steps=5, learning_rate=2e-2, per_device_train_batch_size=4)
    encoded = peer.encode(model, FEW)
    ours = predictions(tmp_path, model, rows_files[1], adapter=out)
    assert nll(ours["adapter"]) != pytest.approx(nll(ours["base"]), rel=1e-3)
    assert nll(ours["adapter"]) == pytest.approx(peer.nlls(peer.load_with_adapter(model, out), encoded), rel=1e-5)
    run("merge", "--model", model, "--adapter", out, "--output", tmp_path / "merged")
    merged = predictions(tmp_path, tmp_path / "merged", rows_files[1])["base"]
    assert nll(merged) == pytest.approx(nll(ours["adapter"]), rel=1e-5)
    assert nll(merged) == pytest.approx(peer.nlls(peer.load(tmp_path / "merged"), encoded), rel=1e-5)


@pytest.mark.parametrize("name", [*family.FAMILIES, "llama, tied, biases", "gpt2, unscaled, untied"])
def test_full_gradients(tmp_path, models, rows_files, name):
    """Every weight's gradient by one step of descent; a tied weight has one, from both its places."""
    model, rate = models(name), 100.0
    out = train(tmp_path, method="full", model_name_or_path=model, datasets=[rows_files[1]], template="none",
                shuffle=False, optim="sgd", learning_rate=rate, max_steps=1, max_grad_norm=0,
                lr_scheduler_type="constant", per_device_train_batch_size=4)
    theirs, stepped = peer.load(model), peer.load(out)
    loss = peer_loss(theirs, peer.encode(model, FEW))
    loss.backward()
    assert metrics(out)[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    moved = dict(stepped.named_parameters())
    for key, parameter in theirs.named_parameters():
        difference = (parameter - moved[key]) / rate - parameter.grad
        assert difference.norm() <= 1e-4 * parameter.grad.norm() + 1e-9, key


@pytest.mark.parametrize("name", EVERY)
def test_greedy_answers(tmp_path, models, name):
    """The key-value cache, a token at a time, beyond every window: the tokens of transformers' generate."""
    import json
    model = models(name)
    tokens = 60
    prompt = toy.rows(1, seed=6, low=8, high=10)[0]["prompt"]
    done = run("generate", "--model", model, "--prompt", prompt, "--template", "none", "--max-new-tokens", tokens,
               "--json", "dtype=float32")
    ids = peer.encode(model, [{"prompt": prompt, "completion": ""}])[0][0][:-1]
    theirs = peer.load(model).generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    wanted = theirs[0, len(ids):].tolist()
    wanted = [token for token in (wanted[:wanted.index(2)] if 2 in wanted else wanted) if token != 0]  # <unk> is special
    import sentencepiece
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    assert json.loads(done.stdout)["completion"].strip() == processor.decode(wanted).strip()


def test_gpt2_without_its_prefix_and_with_mask_buffers(tmp_path, models, rows_files):
    """As older programs saved it: a bare decoder, and buffers that are no weights."""
    folder = shutil.copytree(models("gpt2"), tmp_path / "model")
    tensors = {key.removeprefix("transformer."): value for key, value in load_file(folder / "model.safetensors").items()}
    for layer in range(3):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 256, 256).tril().bool()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    before = predictions(tmp_path, models("gpt2"), rows_files[1])["base"]
    assert nll(predictions(tmp_path, folder, rows_files[1])["base"]) == nll(before)
    out = train(tmp_path, model_name_or_path=folder, datasets=[rows_files[1]], template="none", max_steps=3,
                learning_rate=2e-2, per_device_train_batch_size=4)
    run("merge", "--model", folder, "--adapter", out, "--output", tmp_path / "merged")
    live = predictions(tmp_path, folder, rows_files[1], adapter=out)["adapter"]
    assert nll(predictions(tmp_path, tmp_path / "merged", rows_files[1])["base"]) == pytest.approx(nll(live), rel=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "phi3", "mixtral"])
def test_half_types_stay_near_transformers(tmp_path, models, rows_files, name):
    """bfloat16 on both sides: the sums of a row agree as far as 8 bits let them."""
    model = models(name)
    ours = predictions(tmp_path, model, rows_files[1], "dtype=bfloat16")["base"]
    theirs = peer.nlls(peer.load(model).to(torch.bfloat16), peer.encode(model, FEW))
    assert nll(ours) == pytest.approx(theirs, rel=2e-2)
