"""Model folders that are wrong: exit code 4, the file, and the tensor or field."""

import json
import os
import struct

import numpy
from bad_input import Case, changed_fields, changed_tensors, table_of
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def model(name, damage, *says, code=4):
    """`damage(folder)` changes a copy of the sound model, which `eval` then reads."""
    def arrange(place):
        folder = place.copy_of(place.model)
        damage(folder)
        return place.eval(model=folder)
    return Case(name, code, says, arrange)


def bytes_of(change):
    def damage(folder):
        file = folder / WEIGHTS
        file.write_bytes(change(file.read_bytes()))
    return damage


def header(change):
    """Changes the JSON header of the weights, their data untouched."""
    def damage(content):
        size = struct.unpack("<Q", content[:8])[0]
        entries = json.loads(content[8:8 + size])
        entries = change(entries) or entries
        text = json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size:]
    return bytes_of(damage)


def raw_header(text):
    text = text if isinstance(text, bytes) else text.encode()
    return bytes_of(lambda content: struct.pack("<Q", len(text)) + text + content[-1000:])


def entry(**values):
    """Changes the header's entry of one tensor."""
    return header(lambda entries: entries["model.norm.weight"].update(values))


def tensors(change):
    return changed_tensors(WEIGHTS, change)


def config(**values):
    """Changes fields of config.json; None removes one."""
    return changed_fields("config.json", values)


def file(name, content):
    def damage(folder):
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return damage


def shards(change_map=lambda weights: None, after=lambda folder: None):
    """Two shards and an index in place of the one file."""
    def damage(folder):
        values = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(values)
        weight_map = {}
        for part, members in {"a.safetensors": names[::2], "b.safetensors": names[1::2]}.items():
            save_file({name: values[name] for name in members}, folder / part)
            weight_map.update({name: part for name in members})
        weight_map = change_map(weight_map) or weight_map
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        after(folder)
    return damage


def replace(kind):
    """The weights are something else than a file."""
    def damage(folder):
        (folder / WEIGHTS).unlink()
        kind(folder / WEIGHTS)
    return damage


def holes(entries):
    for value in entries.values():
        if "data_offsets" in value:
            value["data_offsets"] = [offset + 8 for offset in value["data_offsets"]]


def overlap(entries):
    names = [name for name in entries if name != "__metadata__"]
    entries[names[0]]["data_offsets"] = entries[names[1]]["data_offsets"]
    entries[names[0]]["shape"] = entries[names[1]]["shape"]


def weird_name(entries):
    entries["../../etc/passwd"] = entries.pop("model.norm.weight")


def shapes_swapped(values):
    values["model.layers.1.self_attn.k_proj.weight"] = numpy.zeros((32, 16), numpy.float32)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 14483464192\n"
HUGE = 2 ** 62

CASES = [
    # The weights' file.
    Case("no folder", 4, ("nowhere", "no such folder"), lambda place: place.eval(model="nowhere")),
    Case("a file for a folder", 4, ("rows",), lambda place: place.eval(model=place.rows)),
    model("LFS pointer", file(WEIGHTS, LFS), WEIGHTS, "git lfs pull"),
    model("empty", bytes_of(lambda content: b""), WEIGHTS),
    model("seven bytes", bytes_of(lambda content: content[:7]), WEIGHTS),
    model("cut in the header", bytes_of(lambda content: content[:100]), WEIGHTS, "header"),
    model("one byte short", bytes_of(lambda content: content[:-1]), WEIGHTS, "truncated"),
    model("one byte more", bytes_of(lambda content: content + b"x"), WEIGHTS, "damaged"),
    model("header of no length", bytes_of(lambda content: bytes(8) + content[8:]), WEIGHTS),
    model("header of a terabyte", bytes_of(lambda c: struct.pack("<Q", 1 << 40) + c[8:]), WEIGHTS, "header"),
    model("header of 2^64 - 1", bytes_of(lambda c: b"\xff" * 8 + c[8:]), WEIGHTS, "header"),
    model("header that is no JSON", raw_header("{nonsense"), WEIGHTS, "JSON"),
    model("header that is a list", raw_header("[1, 2]"), WEIGHTS, "JSON object"),
    model("header nested for an overflow of the stack", raw_header('{"a":' * 300_000), WEIGHTS),
    model("header nested and closed", raw_header('{"a":' * 100_000 + "1" + "}" * 100_000), WEIGHTS),
    model("header that is no text", raw_header(b"\xff\xfe" * 50), WEIGHTS),
    model("entry that is a number", header(lambda e: e.update({"x": 5})), WEIGHTS, "'x'"),
    model("unknown type", entry(dtype="F33"), WEIGHTS, "F33"),
    model("type that is a number", entry(dtype=5), WEIGHTS, "model.norm.weight"),
    model("shape of texts", entry(shape=["a"]), WEIGHTS, "model.norm.weight"),
    model("negative shape", entry(shape=[-32]), WEIGHTS, "model.norm.weight"),
    model("shape that overflows", entry(shape=[HUGE, HUGE, 4]), WEIGHTS, "model.norm.weight"),
    model("shape that overflows to what fits", entry(shape=[1 << 32, 1 << 32, 32]), WEIGHTS, "model.norm.weight"),
    model("shape of a fraction", entry(shape=[32.5]), WEIGHTS, "model.norm.weight"),
    model("end before the beginning", entry(data_offsets=[128, 0]), WEIGHTS, "model.norm.weight"),
    model("end far outside", entry(data_offsets=[0, HUGE]), WEIGHTS, "model.norm.weight"),
    model("negative offset", entry(data_offsets=[-128, 0]), WEIGHTS, "model.norm.weight"),
    model("one offset", entry(data_offsets=[0]), WEIGHTS, "model.norm.weight"),
    model("end moved", header(lambda e: e["model.norm.weight"]["data_offsets"].__setitem__(1, 5)), WEIGHTS),
    model("holes", header(holes), WEIGHTS, "hole"),
    model("overlap", header(overlap), WEIGHTS),
    model("a tensor with a path for a name", header(weird_name), "model.norm.weight", "etc/passwd"),
    model("a folder for a file", replace(os.mkdir), WEIGHTS),
    model("a pipe for a file", replace(os.mkfifo), WEIGHTS),
    model("a link to nothing", replace(lambda path: path.symlink_to("nowhere")), "safetensors"),
    model("no weights", lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS, "neither"),
    model("weights of pickle alone", lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
          "pytorch_model.bin", "safetensors"),
    # Tensors.
    model("missing tensor", tensors(lambda t: t.pop("lm_head.weight")), "lm_head.weight"),
    model("extra tensor", tensors(lambda t: t.update({"model.surprise": numpy.zeros(2, numpy.float32)})),
          "model.surprise"),
    model("wrong shape", tensors(shapes_swapped), "k_proj", r"\[32, 16\]", r"\[16, 32\]"),
    model("whole numbers for weights", tensors(lambda t: t.update({"model.norm.weight": numpy.zeros(32, numpy.int64)})),
          "model.norm.weight"),
    model("all tensors missing", tensors(lambda t: [t.pop(name) for name in list(t)[1:]]), "more"),
    # Shards.
    model("shard that is not there", shards(after=lambda f: (f / "b.safetensors").unlink()), "b.safetensors"),
    model("shard outside of the folder", shards(lambda m: {**m, "lm_head.weight": "../b.safetensors"}),
          "index.json", "lm_head.weight"),
    model("shard by an absolute path", shards(lambda m: {**m, "lm_head.weight": "/etc/passwd"}), "index.json"),
    model("shard that is the index", shards(lambda m: {**m, "lm_head.weight": "model.safetensors.index.json"}),
          "model.safetensors.index.json"),
    model("shard that is a number", shards(lambda m: {**m, "lm_head.weight": 5}), "index.json", "lm_head.weight"),
    model("index of another shard", shards(lambda m: {**m, "extra.weight": "a.safetensors"}), "extra.weight"),
    model("index without a map", shards(after=file("model.safetensors.index.json", "{}")), "weight_map"),
    model("index that is no JSON", shards(after=file("model.safetensors.index.json", "{")), "index.json"),
    # config.json.
    model("no config.json", lambda folder: (folder / "config.json").unlink(), "config.json"),
    model("config.json cut short", file("config.json", '{"model_type": "llama",'), "config.json"),
    model("config.json that is a list", file("config.json", "[]"), "config.json"),
    model("config.json that is empty", file("config.json", ""), "config.json"),
    model("config.json nested for an overflow of the stack", file("config.json", '{"a":' * 300_000), "config.json"),
    model("config.json without fields", file("config.json", "{}"), "config.json"),
    model("config.json with a nested size", config(hidden_size=json.loads("[" * 500 + "]" * 500)), "hidden_size"),
    model("unknown family", config(model_type="mamba", architectures=["MambaForCausalLM"]), "mamba"),
    model("family that is a number", config(model_type=5), "model_type"),
    model("no hidden_size", config(hidden_size=None), "hidden_size"),
    model("hidden_size of 0", config(hidden_size=0), "hidden_size"),
    model("negative layers", config(num_hidden_layers=-1), "num_hidden_layers"),
    model("layers that are a text", config(num_hidden_layers="two"), "num_hidden_layers"),
    model("a fraction of layers", config(num_hidden_layers=1.5), "num_hidden_layers"),
    model("sizes that overflow", config(hidden_size=2 ** 31, intermediate_size=2 ** 31), "config.json|shape|tensors"),
    model("a size of 1e300", config(vocab_size=1e300), "vocab_size"),
    model("two thousand million layers", config(num_hidden_layers=2 ** 31), "layers"),
    model("heads that do not divide", config(num_attention_heads=5), "num_attention_heads|head"),
    model("keys that do not divide", config(num_key_value_heads=3), "num_key_value_heads"),
    model("more layers than tensors", config(num_hidden_layers=3), "model.layers.2"),
    model("fewer layers than tensors", config(num_hidden_layers=1), "model.layers.1"),
    model("unknown activation", config(hidden_act="quux"), "hidden_act", "quux"),
    model("unknown rope", config(rope_scaling={"rope_type": "quux"}), "quux"),
    model("rope that is a text", config(rope_scaling="linear"), "rope_scaling"),
    model("rope factor of 0", config(rope_scaling={"rope_type": "linear", "factor": 0}), "factor"),
    model("negative rope_theta", config(rope_theta=-1), "rope_theta"),
    model("norm that is a text", config(rms_norm_eps="tiny"), "rms_norm_eps"),
    model("weights of a method we do not read", config(quantization_config={"quant_method": "gptq"}), "gptq"),
]

outcomes, test_bad_input = table_of(CASES)
