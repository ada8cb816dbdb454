"""Every kind of adapter against PEFT: saved here and opened there, made there and continued here, merged."""

import json

import peer
import pytest
import toy
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from program import metrics, predictions, run, train, write_rows
from safetensors.torch import load_file
from test_training import check_first_loss_and_gradients, step_keys

ROWS = toy.rows(12, seed=6)
QV = ["q_proj", "v_proj"]

# Name -> settings of this program.
OURS = {
    "patterns": {"target_modules": "all-linear", "rank_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 6},
                 "alpha_pattern": {"down_proj": 5}},
    "dora": {"use_dora": True, "lora_dropout": 0.1},
    "dora, rslora": {"use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens", "model.norm"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head", *QV]},
    "head alone, dropout": {"target_modules": ["lm_head"], "lora_dropout": 0.2},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa, rslora, dora": {"init_lora_weights": "pissa", "use_rslora": True, "use_dora": True},
    "pissa_niter": {"init_lora_weights": "pissa_niter_8", "lora_rank": 2},
    "olora": {"init_lora_weights": "olora", "target_modules": "all-linear"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "ia3": {"method": "ia3"},
    "ia3, more": {"method": "ia3", "target_modules": ["q_proj", "up_proj", "o_proj"], "feedforward_modules": ["o_proj"],
                  "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def base(request, tmp_path_factory):
    return toy.make_model(tmp_path_factory.mktemp("base"), tie_word_embeddings=request.param)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory):
    """Trains each variant once; name -> output folder."""
    folders = {}

    def get(name):
        if name not in folders:
            keys = {"lora_rank": 4, "learning_rate": 2e-2, "max_steps": 4, **OURS[name]}
            if OURS[name].get("method") == "ia3":
                del keys["lora_rank"]
            folders[name] = train(tmp_path_factory.mktemp("run"), **step_keys(base, data, **keys))
        return folders[name]
    return get


def nlls(rows):
    return [row["nll"] for row in rows]


@pytest.mark.parametrize("name", OURS)
def test_saved_here_opened_by_peft(tmp_path, base, data, trained, name):
    out = trained(name)
    ours = predictions(tmp_path, base, data, adapter=out)
    encoded = peer.encode(base, ROWS)
    for folder in (out, out / "checkpoint-4"):
        theirs = peer.nlls(peer.load_with_adapter(base, folder), encoded)
        assert nlls(ours["adapter"]) == pytest.approx(theirs, rel=1e-5)
    assert nlls(ours["adapter"]) != pytest.approx(nlls(ours["base"]), rel=1e-3)


@pytest.mark.parametrize("name", OURS)
def test_merged_opened_by_transformers(tmp_path, base, data, trained, name):
    live = predictions(tmp_path, base, data, adapter=trained(name))["adapter"]
    run("merge", "--model", base, "--adapter", trained(name), "--output", tmp_path / "merged")
    theirs = peer.nlls(peer.load(tmp_path / "merged"), peer.encode(base, ROWS))
    assert nlls(live) == pytest.approx(theirs, rel=2e-5)


@pytest.mark.parametrize("name", ["dora", "pissa", "olora", "modules_to_save", "embedding and head", "ia3"])
def test_resumed_is_uninterrupted(tmp_path, base, data, name):
    keys = step_keys(base, data, **{"learning_rate": 2e-2, "save_steps": 2, "lora_rank": 4, **OURS[name]})
    if "ia3" in name:
        del keys["lora_rank"]
    whole = train(tmp_path / "whole", max_steps=4, **keys)
    part = train(tmp_path / "part", max_steps=2, **keys)
    train(tmp_path / "part", "--resume", "--allow-changed", max_steps=4, **keys)
    file = "adapter_model.safetensors"
    assert (part / file).read_bytes() == (whole / file).read_bytes()


def made_by_peft(folder, base, config, touch=True):
    """An adapter that PEFT saves, its values moved away from the start; (folder, live model)."""
    torch.manual_seed(3)
    model = get_peft_model(peer.load(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and touch:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder, model


THEIRS = {
    "dora": LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=QV),
    "patterns": LoraConfig(r=4, target_modules=["q_proj", "k_proj"], rank_pattern={"k_proj": 2}, alpha_pattern={"q_proj": 3}),
    "modules_to_save": LoraConfig(r=4, target_modules=QV, modules_to_save=["lm_head", "norm"]),
    "embedding, head": LoraConfig(r=4, target_modules=["q_proj", "embed_tokens", "lm_head"]),
    "pissa": LoraConfig(r=4, lora_alpha=8, target_modules=QV, init_lora_weights="pissa"),
    "olora": LoraConfig(r=4, lora_alpha=4, target_modules=QV, init_lora_weights="olora"),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.filterwarnings("ignore")
def test_made_by_peft_opened_here(tmp_path, base, data, name):
    folder, live = made_by_peft(tmp_path / "adapter", base, THEIRS[name])
    ours = predictions(tmp_path, base, data, adapter=folder)["adapter"]
    assert nlls(ours) == pytest.approx(peer.nlls(live, peer.encode(base, ROWS)), rel=2e-5)


@pytest.mark.parametrize("name", ["dora", "patterns", "modules_to_save", "embedding, head", "pissa", "olora"])
@pytest.mark.filterwarnings("ignore")
def test_made_by_peft_continued_here(tmp_path, base, data, name):
    """One step of plain descent from PEFT's adapter shows its gradients."""
    config = THEIRS[name]
    folder, model = made_by_peft(tmp_path / "adapter", base, config)
    out = train(tmp_path, init_lora_weights=folder, optim="sgd", learning_rate=1.0, max_steps=1,
                **step_keys(base, data))
    loss = peer.mean_loss(model, peer.encode(base, ROWS[:4]))
    loss.backward()
    assert metrics(out)[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.sub_(parameter.grad)
    ours = predictions(tmp_path, base, data, adapter=out)["adapter"]
    assert nlls(ours) == pytest.approx(peer.nlls(model, peer.encode(base, ROWS)), rel=1e-4)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_dora": True, "target_modules": ["down_proj", "o_proj"]}], ids=str)
def test_gradients_of_dora(tmp_path, base, data, options):
    check_first_loss_and_gradients(tmp_path, base, data, ROWS, options)


def test_pissa_and_olora_begin_at_the_base(tmp_path, base, data):
    plain = train(tmp_path / "plain", max_steps=1, **step_keys(base, data))
    for init in ("pissa", "pissa_niter_4", "olora"):
        out = train(tmp_path / init, max_steps=1, lora_rank=4, init_lora_weights=init, **step_keys(base, data))
        assert metrics(out)[0]["loss"] == pytest.approx(metrics(plain)[0]["loss"], rel=1e-5)
        config = json.loads((out / "adapter_config.json").read_text())
        assert config["r"] == 8 and config["init_lora_weights"] is True


def test_fifty_steps_of_pissa(tmp_path, base, data):
    """The same curve as PEFT's, whose start is the same."""
    rate = 5e-3
    out = train(tmp_path, init_lora_weights="pissa", lora_rank=4, lora_alpha=8, target_modules=QV, max_steps=50,
                learning_rate=rate, **step_keys(base, data))
    model = get_peft_model(peer.load(base), LoraConfig(r=4, lora_alpha=8, target_modules=QV, init_lora_weights="pissa"))
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0)
    encoded = peer.encode(base, ROWS)
    for step, line in enumerate(metrics(out)):
        first = step * 4 % len(ROWS)
        loss = peer.mean_loss(model, encoded[first:first + 4])
        assert line["loss"] == pytest.approx(loss.item(), rel=1e-4), f"step {step + 1}"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_stacked_adapter_opens_alone(tmp_path, base, data):
    lower = train(tmp_path / "lower", max_steps=4, lora_rank=4, learning_rate=2e-2, target_modules=["v_proj", "o_proj"],
                  **step_keys(base, data))
    both = train(tmp_path / "both", max_steps=1, lora_rank=2, learning_rate=1e-9, target_modules=QV,
                 stack_on_adapter=lower, **step_keys(base, data))
    alone = nlls(predictions(tmp_path, base, data, adapter=lower)["adapter"])
    assert nlls(predictions(tmp_path, base, data, adapter=both)["adapter"]) == pytest.approx(alone, rel=1e-5)
    assert peer.nlls(peer.load_with_adapter(base, both), peer.encode(base, ROWS)) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("combination", ["cat", "linear"])
def test_weighted_sum_as_peft_makes_it(tmp_path, base, data, combination):
    one = peer.make_adapter(tmp_path / "one", base, seed=1)
    two = peer.make_adapter(tmp_path / "two", base, seed=2, lora_alpha=5)
    model = peer.load_with_adapter(base, one)
    model.load_adapter(two, "two")
    model.add_weighted_adapter(["default", "two"], [0.7, 0.4], "sum", combination_type=combination)
    model.set_adapter("sum")
    theirs = peer.nlls(model, peer.encode(base, ROWS))
    weights = ["--weight", 0.7, "--weight", 0.4, "--combination", combination]
    run("merge", "--adapter", one, "--adapter", two, *weights, "--adapter-only", "--output", tmp_path / "sum")
    ours = predictions(tmp_path, base, data, adapter=tmp_path / "sum")["adapter"]
    assert nlls(ours) == pytest.approx(theirs, rel=1e-5)
    run("merge", "--model", base, "--adapter", one, "--adapter", two, *weights, "--output", tmp_path / "merged")
    assert peer.nlls(peer.load(tmp_path / "merged"), peer.encode(base, ROWS)) == pytest.approx(theirs, rel=1e-5)


def test_several_adapters_over_one_base(tmp_path, base, data):
    folders = [peer.make_adapter(tmp_path / name, base, seed=seed) for seed, name in enumerate(["one", "two"])]
    file = tmp_path / "scores.json"
    run("eval", "--model", base, "--adapter", folders[0], "--adapter", folders[1], "--data", data, "--json", file,
        "template=none", "dtype=float32")
    scores = {result["variant"]: result["loss"] for result in json.loads(file.read_text())["results"]}
    assert list(scores) == ["base", "one", "two"]
    for folder in folders:
        alone = predictions(tmp_path, base, data, adapter=folder)["adapter"]
        tokens = sum(row["supervised_tokens"] for row in alone)
        assert scores[folder.name] == pytest.approx(sum(nlls(alone)) / tokens, rel=1e-9)


def test_untied_ends_are_written(tmp_path, data):
    base = toy.make_model(tmp_path / "base", tie_word_embeddings=True)
    out = train(tmp_path, modules_to_save=["lm_head"], max_steps=2, learning_rate=1e-2, **step_keys(base, data))
    run("merge", "--model", base, "--adapter", out, "--output", tmp_path / "merged")
    assert json.loads((tmp_path / "merged/config.json").read_text())["tie_word_embeddings"] is False
    merged, before = load_file(tmp_path / "merged/model.safetensors"), load_file(base / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert not torch.equal(merged["lm_head.weight"], before["model.embed_tokens.weight"])


def test_wrong_settings_are_told(tmp_path, base, data):
    keys = step_keys(base, data, max_steps=1)

    def message(**changes):
        from program import train_arguments
        done = run(*train_arguments(tmp_path, overwrite_output_dir=True, **{**keys, **changes}), expect=2)
        return done.stderr
    assert "modules_to_save: no module of this model ends in 'lm_haed'" in message(modules_to_save=["lm_haed"])
    assert "rank_pattern: 'up_proj' matches no adapted module" in message(rank_pattern={"up_proj": 4})
    assert "both match" in message(rank_pattern={"q_proj": 4, ".*proj": 2})
    assert "needs a rank of at most" in message(init_lora_weights="pissa", lora_rank=64)
    assert "loftq begins with what quantization lost" in message(init_lora_weights="loftq")
    for name in ("q_proj", "lm_head", "embed_tokens"):
        assert f"{name} is in both target_modules and modules_to_save" in message(target_modules=[name, "v_proj"],
                                                                                 modules_to_save=[name])
