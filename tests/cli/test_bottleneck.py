"""`method: adapter`: bottleneck adapters through every verb."""

import json
import shutil

import pytest
import toy
from program import metrics, predictions, run, train, train_arguments, write_rows
from safetensors.numpy import load_file, save_file

FILE = "adapter.safetensors"


@pytest.fixture(scope="module")
def settings(model, rows_file):
    return {"model_name_or_path": model, "datasets": [rows_file], "template": "none", "method": "adapter",
            "adapter_size": 8, "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2,
            "adapter_dropout": 0.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, settings):
    return train(tmp_path_factory.mktemp("bottleneck"), adapter_placement="houlsby", **settings)


def nlls(rows):
    return [row["nll"] for row in rows]


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_begins_at_the_base(tmp_path, model, rows_file, settings, placement):
    out = train(tmp_path, **{**settings, "adapter_placement": placement, "learning_rate": 1e-30, "max_steps": 1})
    rows = predictions(tmp_path, model, rows_file, adapter=out)
    assert nlls(rows["adapter"]) == pytest.approx(nlls(rows["base"]), rel=1e-6)


def test_learns(tmp_path, settings):
    losses = [line["loss"] for line in metrics(train(tmp_path, **{**settings, "max_steps": 30}))]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_same_bytes_twice_and_resumed(tmp_path, settings):
    keys = {**settings, "save_steps": 2}
    whole = train(tmp_path / "whole", **keys)
    again = train(tmp_path / "again", **keys)
    train(tmp_path / "part", **{**keys, "max_steps": 2})
    part = train(tmp_path / "part", "--resume", "--allow-changed", **keys)
    assert (whole / FILE).read_bytes() == (again / FILE).read_bytes() == (part / FILE).read_bytes()
    assert not (whole / "adapter_model.safetensors").exists()


def test_micro_batches_give_the_same_gradient(tmp_path, settings):
    keys = {**settings, "adapter_dropout": 0, "max_steps": 1}
    whole = metrics(train(tmp_path / "whole", **keys))
    parts = metrics(train(tmp_path / "parts", **{**keys, "per_device_train_batch_size": 1,
                                                 "gradient_accumulation_steps": 4}))
    assert parts[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=1e-4)


def test_over_a_quantized_base(tmp_path, model, rows_file, settings):
    out = train(tmp_path, **settings, quantization="nf4")
    rows = predictions(tmp_path, model, rows_file, "quantization=nf4", adapter=out)
    assert nlls(rows["adapter"]) != pytest.approx(nlls(rows["base"]), rel=1e-3)


def test_generate_beside_another_kind(model, adapter, trained):
    done = run("generate", "--model", model, "--adapter", trained, "--adapter", adapter, "--prompt", "pod =",
               "--max-new-tokens", 4, "--json", "template=none", "dtype=float32")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["adapter"] for answer in answers] == [str(trained), str(adapter)]


def test_inspect(trained):
    found = json.loads(run("inspect", "adapter", trained, "--json").stdout)
    assert found["type"] == "adapter" and found["placement"] == "houlsby" and found["size"] == 8
    assert found["targets"] == ["attention_adapters", "output_adapters"]
    assert found["modules"] == 4 and found["parameters"] == 4 * (2 * 32 * 8 + 32 + 8)


def test_merge_says_why_not(tmp_path, model, trained):
    done = run("merge", "--model", model, "--adapter", trained, "--output", tmp_path / "out", expect=4)
    assert "a nonlinearity lies between" in done.stderr


@pytest.mark.parametrize("settings_of_wrong, says", [
    ({"init_lora_weights": "pissa"}, "names a start of low-rank updates"),
    ({"adapter_placement": "sideways"}, "pfeiffer, houlsby, parallel"),
    ({"layers_to_transform": [7]}, "this model has blocks 0 to 1"),
    ({"adapter_dropout": 1.0}, "adapter_dropout"),
], ids=str)
def test_wrong_settings(tmp_path, settings, settings_of_wrong, says):
    assert says in run(*train_arguments(tmp_path, **{**settings, **settings_of_wrong}), expect=2).stderr


def test_continued_settings_must_agree(tmp_path, settings, trained, adapter):
    def message(expect=2, **changes):
        keys = {**settings, "init_adapter": trained, **changes}
        return run(*train_arguments(tmp_path, overwrite_output_dir=True, **keys), expect=expect).stderr
    assert "adapter_size is 9, but the adapter" in message(adapter_size=9)
    assert "adapter_activation is relu, but" in message(adapter_activation="relu")
    assert "adapter_placement is parallel, but" in message(adapter_placement="parallel")
    assert "layers_to_transform comes from the adapter" in message(layers_to_transform=[1])
    assert "is an adapter of the adapters library; expected one of PEFT" in message(expect=4, method="lora")
    assert "is an adapter of PEFT; expected a bottleneck adapter" in message(expect=4, init_adapter=adapter)


def test_damaged_folders(tmp_path, model, rows_file, trained):
    def message(change_config=None, change_tensors=None, base=model):
        folder = shutil.copytree(trained, tmp_path / "copy", dirs_exist_ok=True)
        config, tensors = json.loads((trained / "adapter_config.json").read_text()), load_file(trained / FILE)
        if change_config:
            change_config(config)
        if change_tensors:
            change_tensors(tensors)
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / FILE)
        return run("eval", "--model", base, "--adapter", folder, "--data", rows_file, "template=none", expect=4).stderr
    stem = "model.layers.1.output_adapters.adapters.finetune"
    assert "has no adapter_up.bias" in message(change_tensors=lambda tensors: tensors.pop(f"{stem}.adapter_up.bias"))
    assert "is no tensor of" in message(change_tensors=lambda tensors: tensors.update(
        {"model.layers.1.mlp.weight": tensors[f"{stem}.adapter_up.bias"]}))
    assert "'leave_out' says otherwise" in message(change_config=lambda config: config["config"].update(leave_out=[1]))
    assert "'ln_before' is true; this version computes false" in message(
        change_config=lambda config: config["config"].update(ln_before=True))
    assert "'scaling' is \"learned\"" in message(change_config=lambda config: config["config"].update(scaling="learned"))
    assert "'non_linearity' is \"mish\"" in message(
        change_config=lambda config: config["config"].update(non_linearity="mish"))
    assert 'is "lora"' in message(change_config=lambda config: config["config"].update(architecture="lora"))
    wider = toy.make_model(tmp_path / "wider", hidden_size=40)
    assert "is made for a hidden_size of 32; this model has 40" in message(base=wider)
    (tmp_path / "copy" / FILE).rename(tmp_path / "copy" / "pytorch_adapter.bin")
    done = run("eval", "--model", model, "--adapter", tmp_path / "copy", "--data", rows_file, "template=none", expect=4)
    assert "use_safetensors=True" in done.stderr
