"""finetune merge from outside."""

import json
import shutil
import subprocess
import sys

import pytest
import toy
from program import BIN, predictions, run, train
from safetensors import safe_open
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def merged(tmp_path_factory, model, adapter):
    folder = tmp_path_factory.mktemp("merged") / "merged"
    run("merge", "--model", model, "--adapter", adapter, "--output", folder)
    return folder


def types(folder):
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}


def test_folder_is_a_model(merged, model):
    assert {"config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"} <= {
        path.name for path in merged.iterdir()}
    assert (merged / "tokenizer.model").read_bytes() == (model / "tokenizer.model").read_bytes()
    assert json.loads((merged / "config.json").read_text())["hidden_size"] == 32


def test_weights_are_base_plus_delta(merged, model, adapter):
    base, result = load_file(model / "model.safetensors"), load_file(merged / "model.safetensors")
    lora = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert base.keys() == result.keys()
    for name in base:
        expected = base[name]
        prefix = "base_model.model." + name.removesuffix(".weight")
        if prefix + ".lora_A.weight" in lora:
            delta = lora[prefix + ".lora_B.weight"] @ lora[prefix + ".lora_A.weight"]
            expected = expected + config["lora_alpha"] / config["r"] * delta
            assert abs(expected - base[name]).max() > 1e-4
        assert abs(result[name] - expected).max() <= 1e-5 * abs(expected).max(), name


def test_merged_gives_the_same_likelihood(tmp_path, merged, model, adapter, rows_file):
    live = predictions(tmp_path, model, rows_file, adapter=adapter)["adapter"]
    alone = predictions(tmp_path, merged, rows_file)["base"]
    for left, right in zip(live, alone, strict=True):
        assert right["nll"] == pytest.approx(left["nll"], rel=1e-5)


@pytest.mark.parametrize("dtype, stored", [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")])
def test_dtype(tmp_path, model, adapter, dtype, stored):
    run("merge", "--model", model, "--adapter", adapter, "--output", tmp_path / "out", "--dtype", dtype)
    assert types(tmp_path / "out") == {stored}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == dtype


def test_base_is_taken_from_the_adapter(tmp_path, model, adapter):
    run("merge", "--adapter", adapter, "--output", tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").exists()


def test_same_bytes_twice(tmp_path, merged, model, adapter):
    run("merge", "--model", model, "--adapter", adapter, "--output", tmp_path / "out")
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (merged / name).read_bytes()


def merge_peak_bytes(folder, rows_file, **shape):
    """The largest resident memory of merging an adapter into a model of this shape, and the size of its weights."""
    model = toy.make_model(folder / "model", **shape)
    adapter = train(folder, model_name_or_path=model, datasets=[rows_file], template="none", max_steps=1)
    # From a small interpreter: what a process takes before it becomes another program counts as its own.
    measure = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    kilobytes = subprocess.check_output([sys.executable, "-c", measure, BIN, "merge", "--model", model, "--adapter", adapter,
                                         "--output", folder / "merged"])
    return int(kilobytes) * 1024, (model / "model.safetensors").stat().st_size


def test_a_large_model_is_never_in_memory_as_a_whole(tmp_path, rows_file):
    """163 MB of weights in tensors of three at most, beside a model of nothing."""
    nothing, _ = merge_peak_bytes(tmp_path / "small", rows_file)
    peak, size = merge_peak_bytes(tmp_path / "large", rows_file, hidden_size=512, intermediate_size=1536,
                                  num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=8)
    assert size > 150e6
    assert peak - nothing < 30e6, f"{(peak - nothing) / 1e6:.1f} MB above the merge of a tiny model"


def test_refuses_what_it_must(tmp_path, model, adapter):
    run("merge", "--model", tmp_path / "nowhere", "--adapter", adapter, "--output", tmp_path / "a", expect=4)
    run("merge", "--model", model, "--adapter", tmp_path / "nowhere", "--output", tmp_path / "b", expect=4)
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    file = damaged / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    run("merge", "--model", model, "--adapter", damaged, "--output", tmp_path / "c", expect=4)
    assert not (tmp_path / "c" / "model.safetensors").exists()
