"""Losses, gradients and curves against a hand-written loop with transformers and PEFT."""

import random

import peer
import pytest
import toy
import torch
from program import metrics, predictions, run, train, write_rows
from safetensors.torch import load_file

ROWS = toy.rows(16, seed=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


def step_keys(model, data, **changes):
    return {"model_name_or_path": model, "datasets": [data], "template": "none", "shuffle": False,
            "lr_scheduler_type": "constant", "max_grad_norm": 0, "per_device_train_batch_size": 4, **changes}


def sgd_gradients(tmp_path, model, adapter, data, learning_rate=1000.0, **changes):
    """(first loss, name -> gradient): one step of plain descent from the adapter shows its gradient.
    The rate is so large that the step, not the weight, decides the rounding of the difference."""
    out = train(tmp_path, init_lora_weights=adapter, optim="sgd", learning_rate=learning_rate, max_steps=1,
                **step_keys(model, data, **changes))
    before, after = load_file(adapter / "adapter_model.safetensors"), load_file(out / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    return metrics(out)[0], {name: (before[name] - after[name]) / learning_rate for name in before}


def check_gradients(ours, parameters, tolerance=1e-4):
    assert ours.keys() == parameters.keys()
    for name, parameter in parameters.items():
        difference = (ours[name] - parameter.grad).norm() / parameter.grad.norm()
        assert difference < tolerance, f"{name}: {difference:.2e}"


def check_first_loss_and_gradients(tmp_path, model, data, rows, options):
    """Of a PEFT adapter with these options; `data` holds `rows`."""
    adapter = peer.make_adapter(tmp_path / "adapter", model, **options)
    line, gradients = sgd_gradients(tmp_path, model, adapter, data)
    theirs = peer.load_with_adapter(model, adapter, trainable=True)
    loss = peer.mean_loss(theirs, peer.encode(model, rows[:4]))
    loss.backward()
    parameters = peer.trainable(theirs)
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-6)
    norm = torch.cat([parameter.grad.flatten() for parameter in parameters.values()]).norm()
    assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    check_gradients(gradients, parameters)


@pytest.mark.parametrize("options", [
    {}, {"target_modules": "all-linear"}, {"use_rslora": True}, {"target_modules": ["q_proj", "v_proj"], "r": 8},
    {"target_modules": ["down_proj"]}, {"layers_to_transform": [1]},
], ids=str)
def test_first_loss_and_gradients(tmp_path, model, data, options):
    check_first_loss_and_gradients(tmp_path, model, data, ROWS, options)


@pytest.mark.parametrize("changes", [
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    {"tie_word_embeddings": True, "num_key_value_heads": 1}, {"head_dim": 16},
], ids=str)
def test_gradients_of_other_configurations(tmp_path, data, changes):
    model = toy.make_model(tmp_path / "model", **changes)
    test_first_loss_and_gradients(tmp_path, model, data, {"target_modules": "all-linear"})


def test_gradients_of_a_real_model(tmp_path, real_model):
    from transformers import AutoTokenizer
    texts = ["Once upon a time, there was a cat.", "Lily and Tom went to the park to play with a red ball."]
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": text, "completion": " The end."} for text in texts])
    adapter = peer.make_adapter(tmp_path / "adapter", real_model)
    line, gradients = sgd_gradients(tmp_path, real_model, adapter, data, per_device_train_batch_size=2)
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    encoded = []
    for text in texts:
        plain = tokenizer(text + " The end.", add_special_tokens=False, return_offsets_mapping=True)
        encoded.append(([tokenizer.bos_token_id, *plain["input_ids"], tokenizer.eos_token_id],
                        [False, *(end > len(text) for _, end in plain["offset_mapping"]), True]))
    theirs = peer.load_with_adapter(real_model, adapter, trainable=True)
    loss = peer.mean_loss(theirs, encoded)
    loss.backward()
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-6)
    check_gradients(gradients, peer.trainable(theirs))


def test_fifty_steps_of_adamw(tmp_path, model, data):
    """The same rows in the same order, AdamW with weight decay, clipping, warm-up and cosine decay."""
    steps, rate, warmup, batch, clip = 50, 5e-3, 5, 4, 0.5
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    out = train(tmp_path, init_lora_weights=adapter, learning_rate=rate, max_steps=steps, warmup_steps=warmup,
                weight_decay=0.01, **step_keys(model, data, lr_scheduler_type="cosine", max_grad_norm=clip))
    ours = metrics(out)

    from transformers import get_cosine_schedule_with_warmup
    theirs = peer.load_with_adapter(model, adapter, trainable=True)
    parameters = list(peer.trainable(theirs).values())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    encoded = peer.encode(model, ROWS)
    for step in range(steps):
        first = step * batch % len(ROWS)
        loss = peer.mean_loss(theirs, encoded[first:first + batch])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
        assert ours[step]["loss"] == pytest.approx(loss.item(), rel=1e-4), f"step {step + 1}"
        assert ours[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-2), f"step {step + 1}"
        optimizer.step()
        schedule.step()
    assert loss.item() < ours[0]["loss"] * 0.9


def test_saved_adapter_opens_in_peft(tmp_path, model, data):
    for name, options in {"attention": {}, "linears": {"target_modules": "all-linear"},
                          "rslora": {"use_rslora": True}, "layers": {"layers_to_transform": [0]}}.items():
        out = train(tmp_path / name, max_steps=5, lora_rank=4, learning_rate=2e-2,
                    **step_keys(model, data, **options))
        encoded = peer.encode(model, ROWS)
        ours = predictions(tmp_path, model, data, adapter=out)
        for folder in (out, out / "checkpoint-5"):
            theirs = peer.nlls(peer.load_with_adapter(model, folder), encoded)
            assert [row["nll"] for row in ours["adapter"]] == pytest.approx(theirs, rel=1e-5), name
        assert ours["adapter"][0]["nll"] != pytest.approx(ours["base"][0]["nll"], rel=1e-3)


def test_merged_folder_opens_in_transformers(tmp_path, model, data):
    out = train(tmp_path, max_steps=5, lora_rank=4, learning_rate=2e-2, **step_keys(model, data))
    run("merge", "--model", model, "--adapter", out, "--output", tmp_path / "merged")
    encoded = peer.encode(model, ROWS)
    live = predictions(tmp_path, model, data, adapter=out)["adapter"]
    theirs = peer.nlls(peer.load(tmp_path / "merged"), encoded)
    assert [row["nll"] for row in live] == pytest.approx(theirs, rel=1e-5)
    with_peft = peer.load_with_adapter(model, out).merge_and_unload().state_dict()
    ours = load_file(tmp_path / "merged/model.safetensors")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, with_peft[name], rtol=1e-5, atol=1e-6)


def test_full_method_gradients(tmp_path, model, data):
    """Every weight's gradient, by one step of descent."""
    rate = 100.0
    out = train(tmp_path, method="full", optim="sgd", learning_rate=rate, max_steps=1, **step_keys(model, data))
    before, after = load_file(model / "model.safetensors"), load_file(out / "model.safetensors")
    theirs = peer.load(model)
    loss = peer.mean_loss(theirs, peer.encode(model, ROWS[:4]))
    loss.backward()
    assert metrics(out)[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    ours = {name: (before[name] - after[name]) / rate for name in before}
    check_gradients(ours, dict(theirs.named_parameters()))


def test_text_rows(tmp_path, model):
    """{"text"} rows: every token is supervised, and so is </s> at the end."""
    texts = [toy.sentence(random.Random(i), 12) for i in range(4)]
    data = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    ours = predictions(tmp_path, model, data)["base"]
    encoded = [(ids, [False] + [True] * (len(ids) - 1)) for ids, _ in
               peer.encode(model, [{"prompt": "", "completion": text} for text in texts])]
    assert [row["nll"] for row in ours] == pytest.approx(peer.nlls(peer.load(model), encoded), rel=1e-5)
