"""What a user reads when something is wrong, and the exit code a script sees."""

import json
import shutil
import struct

import numpy
import pytest
import toy
from program import run, train_arguments, write_config, write_rows
from safetensors.numpy import load_file, save_file


def expect_error(code, *arguments, says=()):
    done = run(*arguments, expect=code)
    for text in says:
        assert str(text) in done.stderr, f"{text!r} not in:\n{done.stderr}"
    assert "Traceback" not in done.stderr and "terminate called" not in done.stderr
    return done


# Usage and configuration: 2.

def test_usage():
    expect_error(2)
    expect_error(2, "trian")
    expect_error(2, "train", "--confg", "x.yaml")
    expect_error(2, "merge", "--adapter", "x")


def test_missing_config():
    expect_error(2, "train", "--config", "nowhere/lora.yaml", says=["nowhere/lora.yaml"])


@pytest.mark.parametrize("text, says", [
    ("lora_rnak: 4\n", ["bad.yaml:1", "lora_rnak", "lora_rank"]),
    ("seed: 1\nlora:\n  rnak: 4\n", ["bad.yaml:3", "rnak", "rank"]),
    ("seed: [1\n", ["bad.yaml"]),
    ("seed: 1\nseed: 2\n", ["bad.yaml:2", "seed"]),
    ("seed: 1\n---\nseed: 2\n", ["document"]),
    ("learning_rate: fast\n", ["bad.yaml:1", "learning_rate", "fast"]),
    ("lora_rank: 0\n", ["bad.yaml:1", "lora_rank"]),
    ("lora_dropout: 1.5\n", ["bad.yaml:1", "lora_dropout"]),
    ("dtype: float31\n", ["bad.yaml:1", "dtype", "float32"]),
    ("lora_rank: 4\nr: 8\n", ["lora_rank", "r"]),
    ("target_modules: []\n", ["target_modules"]),
    ("per_device_train_batch_size: 4\ntokens_per_batch: 100\n", ["tokens_per_batch"]),
    ("optim: adamm\n", ["adamm", "adamw"]),
])
def test_bad_configuration(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    expect_error(2, "train", "--config", file, says=says)


def test_numbers_and_aliases_are_accepted(tmp_path, keys):
    keys.pop("lora_rank")
    config = write_config(tmp_path / "c.yaml", **keys, r=4, lora_r=4)
    with config.open("a") as file:
        file.write("lr: 1e-2\n")
    run("train", "--config", config, f"output_dir={tmp_path / 'out'}", "--dry-run")


def test_target_that_matches_nothing(tmp_path, keys):
    done = expect_error(2, *train_arguments(tmp_path, target_modules=["q_porj"], **keys), says=["q_porj"])
    assert "q_proj" in done.stderr


# Data: 3.

@pytest.mark.parametrize("row, says", [
    ("{nonsense", []),
    ("[1, 2]", []),
    ('{"prompt": "a"}', ["completion"]),
    ('{"prompt": "a", "completion": 5}', ["completion"]),
    ('{"prompt": "a", "completion": ""}', []),
    ('{"instruction": "a", "output": "b"}', []),  # another format than the rows before it
    ('{"prompt": "a \\ud800", "completion": "b"}', []),
])
def test_bad_row(tmp_path, keys, row, says):
    file = tmp_path / "rows.jsonl"
    good = '{"prompt": "pod", "completion": " node"}\n'
    file.write_text(good + "\n" + row + "\n" + good)
    expect_error(3, *train_arguments(tmp_path, **{**keys, "datasets": [file]}), says=[f"{file}:3", *says])


def test_invalid_utf8(tmp_path, keys):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff", "completion": "b"}\n')
    expect_error(3, *train_arguments(tmp_path, **{**keys, "datasets": [file]}), says=[f"{file}:2"])


def test_ten_problems_then_a_count(tmp_path, keys):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a"}\n' * 25)
    done = expect_error(3, *train_arguments(tmp_path, **{**keys, "datasets": [file]}), says=["15"])
    assert done.stderr.count(f"{file}:") == 10


def test_missing_and_empty_data(tmp_path, keys):
    expect_error(3, *train_arguments(tmp_path, **{**keys, "datasets": ["nowhere.jsonl"]}), says=["nowhere.jsonl"])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    expect_error(3, *train_arguments(tmp_path, **{**keys, "datasets": [empty]}), says=[empty])


def test_row_over_length(tmp_path, keys):
    file = write_rows(tmp_path / "rows.jsonl", [*toy.rows(2), {"prompt": "pod " * 100, "completion": "x"}])
    expect_error(3, *train_arguments(tmp_path, max_length=64, **{**keys, "datasets": [file]}),
                 says=[f"{file}:3", "64", "overlength"])


def test_row_over_bytes(tmp_path, keys):
    file = write_rows(tmp_path / "rows.jsonl", [*toy.rows(1), {"prompt": "pod " * 1000, "completion": "x"}])
    expect_error(3, *train_arguments(tmp_path, max_row_bytes=2000, **{**keys, "datasets": [file]}),
                 says=[f"{file}:2", "max_row_bytes"])


# Model, tokenizer and adapter files: 4.

@pytest.fixture
def broken(tmp_path, model):
    """A copy of the model to be damaged by the test."""
    return shutil.copytree(model, tmp_path / "broken")


def expect_bad_model(folder, rows_file, *says, code=4):
    return expect_error(code, "eval", "--model", folder, "--data", rows_file, "template=none", says=says)


def test_missing_model(tmp_path, rows_file):
    expect_bad_model(tmp_path / "nowhere", rows_file, "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model"])
def test_missing_model_file(broken, rows_file, name):
    (broken / name).unlink()
    expect_bad_model(broken, rows_file, "tokenizer" if name == "tokenizer.model" else name)


def test_lfs_pointer(broken, rows_file):
    (broken / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 14483464192\n")
    expect_bad_model(broken, rows_file, "model.safetensors", "LFS")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights(broken, rows_file, keep):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    expect_bad_model(broken, rows_file, "model.safetensors")


def rewrite_header(file, change):
    """Changes the JSON header of a safetensors file, data untouched."""
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size:])


def shift_end(header):
    header["model.norm.weight"]["data_offsets"][1] += 4


def hole(header):
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [offset + 8 for offset in entry["data_offsets"]]


def unknown_type(header):
    header["model.norm.weight"]["dtype"] = "F33"


@pytest.mark.parametrize("change", [shift_end, hole, unknown_type])
def test_lying_header(broken, rows_file, change):
    rewrite_header(broken / "model.safetensors", change)
    expect_bad_model(broken, rows_file, "model.safetensors")


@pytest.mark.parametrize("size", [0, 2**40, 2**63])
def test_header_that_lies_about_its_length(broken, rows_file, size):
    file = broken / "model.safetensors"
    file.write_bytes(struct.pack("<Q", size) + file.read_bytes()[8:])
    expect_bad_model(broken, rows_file, "model.safetensors", "header")


def test_all_wrong_tensors_at_once(broken, rows_file):
    file = broken / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    tensors["model.layers.1.self_attn.q_proj.weight"] = numpy.zeros((3, 5), dtype=numpy.float32)
    tensors["model.surprise.weight"] = numpy.zeros((2,), dtype=numpy.float32)
    save_file(tensors, file)
    expect_bad_model(broken, rows_file, "model.layers.0.mlp.up_proj.weight",
                     "model.layers.1.self_attn.q_proj.weight", "[3, 5]", "[32, 32]", "model.surprise.weight")


def test_harmless_extra_tensors(broken, rows_file):
    file = broken / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = numpy.zeros((4,), dtype=numpy.float32)
    save_file(tensors, file)
    run("eval", "--model", broken, "--data", rows_file, "template=none")
    tensors["model.surprise.weight"] = numpy.zeros((2,), dtype=numpy.float32)
    save_file(tensors, file)
    run("eval", "--model", broken, "--data", rows_file, "template=none", "allow_extra_tensors=true")


def test_unknown_architecture(broken, rows_file):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "mamba",
                                                    "architectures": ["MambaForCausalLM"]}))
    expect_bad_model(broken, rows_file, "mamba")


def test_bad_config_json(broken, rows_file):
    (broken / "config.json").write_text('{"model_type": "llama",')
    expect_bad_model(broken, rows_file, "config.json")


def test_non_finite_weight(broken, tmp_path, keys):
    file = broken / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file)
    done = run(*train_arguments(tmp_path, **{**keys, "model_name_or_path": broken}), expect=None)
    assert done.returncode in (4, 6), done.stderr
    if done.returncode == 4:
        assert "model.layers.0.mlp.up_proj.weight" in done.stderr


def test_sharded_model_with_a_missing_shard(broken, rows_file):
    tensors = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, members in parts.items():
        save_file({name: tensors[name] for name in members}, broken / part)
    index = {"metadata": {}, "weight_map": {name: part for part, members in parts.items() for name in members}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    run("eval", "--model", broken, "--data", rows_file, "template=none")
    (broken / "model-00002-of-00002.safetensors").unlink()
    expect_bad_model(broken, rows_file, "model-00002-of-00002.safetensors")


def test_missing_adapter(model, rows_file):
    expect_error(4, "eval", "--model", model, "--adapter", "nowhere", "--data", rows_file, says=["nowhere"])


def test_adapter_of_another_base(tmp_path, adapter, rows_file):
    other = toy.make_model(tmp_path / "other", hidden_size=64)
    expect_error(4, "eval", "--model", other, "--adapter", adapter, "--data", rows_file, "template=none",
                 says=["lora_A"])


def test_adapter_with_an_extra_tensor(tmp_path, model, adapter, rows_file):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    tensors = load_file(copy / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = numpy.zeros((4, 32), numpy.float32)
    save_file(tensors, copy / "adapter_model.safetensors")
    expect_error(4, "eval", "--model", model, "--adapter", copy, "--data", rows_file, "template=none",
                 says=["layers.9"])


# Memory, disk, device: 5.

def test_output_that_cannot_be_written(tmp_path, keys):
    file = tmp_path / "file"
    file.write_text("")
    expect_error(5, *train_arguments(tmp_path, output_dir=file / "out", **keys), says=[file])


def test_missing_device(tmp_path, keys):
    import torch
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    expect_error(5, *train_arguments(tmp_path, device="cuda", **keys), says=["cuda"])
