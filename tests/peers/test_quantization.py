"""NF4 bit for bit with bitsandbytes, its checkpoints, and training on quantized weights."""

import json
import math

import family
import peer
import pytest
import toy
import torch
from program import SHARED_DIR, metrics, predictions, run, train, write_rows
from safetensors.torch import load_file, save_file

functional = pytest.importorskip("bitsandbytes.functional")

ROWS = toy.rows(16, seed=5)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The layers' sizes: whole blocks; a short last block and an odd number of weights, with more than 256
# blocks; so many blocks that the mean of their absmax is summed by several threads.
SIZES = {"whole": {"hidden_size": 64, "intermediate_size": 384},
         "odd": {"hidden_size": 33, "head_dim": 6, "intermediate_size": 701, "num_hidden_layers": 1},
         "large": {"hidden_size": 1500, "head_dim": 8, "intermediate_size": 1501, "num_hidden_layers": 1}}


@pytest.fixture(scope="module", autouse=True)
def plain_bitsandbytes():
    """bitsandbytes 0.50 as it is without AVX-512. With it, rows that are a multiple of 16 and not of 64 (the small models here
    have rows of 32) get the absmax of another block, and with AVX512_BF16 it repacks weights in a way that rows below 64 do
    not survive. So its operator by its definition, and no repacking."""
    import bitsandbytes.nn.modules as modules
    library = torch.library.Library("bitsandbytes", "IMPL")

    def dequantize(packed, absmax, blocksize, quant_type, shape, dtype):
        assert quant_type == "nf4"
        packed = packed.contiguous().view(torch.uint8).flatten()
        codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[:math.prod(shape)].long()
        table = functional.get_4bit_type("nf4", device="cpu")
        scales = absmax.float().flatten()[torch.arange(len(codes)) // blocksize]
        return (table[codes] * scales).to(dtype).reshape(shape)
    library.impl("dequantize_4bit", dequantize, "CPU", allow_override=True)
    has_bfloat16, modules.has_avx512bf16 = modules.has_avx512bf16, lambda: False
    yield
    modules.has_avx512bf16 = has_bfloat16
    library._destroy()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("two_rows") / "rows.jsonl", ROWS[:2])


def make_model(folder, dtype=torch.float32, zeros=False, **sizes):
    toy.make_model(folder, **sizes)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    if zeros:
        tensors["model.layers.0.self_attn.k_proj.weight"].zero_()
        tensors["model.layers.0.mlp.down_proj.weight"].flatten()[:640].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    peer.change_config(folder, torch_dtype=str(dtype).removeprefix("torch."))
    return folder


def linears(folder):
    """Name -> weight of the linears of the blocks."""
    return {name: tensor for name, tensor in load_file(folder / "model.safetensors").items()
            if "_proj." in name}


def quantize(weight, double_quant):
    return functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double_quant)


@pytest.mark.parametrize("sizes, dtype, double_quant", [
    *((sizes, dtype, double_quant) for sizes in ("whole", "odd") for dtype in DTYPES for double_quant in (True, False)),
    ("large", "float32", True)])
def test_bits(tmp_path, monkeypatch, two_rows, sizes, dtype, double_quant):
    """What the cache holds is what bitsandbytes stores, tensor by tensor, and computing with it is computing
    with the numbers that bitsandbytes dequantizes."""
    model = make_model(tmp_path / "model", DTYPES[dtype], zeros=sizes == "odd", **SIZES[sizes])
    threads = f"num_threads={torch.get_num_threads()}"
    settings = ["quantization=nf4", f"double_quant={str(double_quant).lower()}", threads]
    monkeypatch.setenv("FINETUNE_CACHE_DIR", str(tmp_path / "cache"))
    ours, again = (predictions(tmp_path, model, two_rows, *settings)["base"] for _ in range(2))
    narrow = predictions(tmp_path, model, two_rows, *settings, "dtype=bfloat16")["base"]
    monkeypatch.delenv("FINETUNE_CACHE_DIR")
    file, = (tmp_path / "cache").glob("nf4-*/model.safetensors")
    stored, dense = load_file(file), load_file(model / "model.safetensors")
    for name, weight in linears(model).items():
        codes, state = quantize(weight, double_quant)
        theirs = {name: codes, **{f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}}
        found = {key: stored.pop(key) for key in theirs}
        header = f"{name}.quant_state.bitsandbytes__nf4"
        assert json.loads(bytes(found.pop(header))) == json.loads(bytes(theirs.pop(header)))
        for key, value in theirs.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), key
        state.dtype = torch.float32
        dense[name] = functional.dequantize_4bit(codes, state)
    assert not stored
    assert ours == again
    for name, tensor in dense.items():
        dense[name] = tensor.float()
    plain = toy.make_model(tmp_path / "plain", **SIZES[sizes])
    save_file(dense, plain / "model.safetensors", metadata={"format": "pt"})
    assert [row["nll"] for row in ours] == [row["nll"] for row in predictions(tmp_path, plain, two_rows, threads)["base"]]
    dense = predictions(tmp_path, plain, two_rows, threads, "dtype=bfloat16")["base"]
    assert [row["nll"] for row in narrow] == [row["nll"] for row in dense]


def test_cache_is_used_and_made_again_when_damaged(tmp_path, data):
    model = make_model(tmp_path / "model", **SIZES["whole"])
    environment = {"FINETUNE_CACHE_DIR": str(tmp_path / "cache")}
    command = ["generate", "--model", model, "--prompt", "pod =", "quantization=nf4", "template=none", "dtype=float32",
               "--max-new-tokens", "16"]
    first = run(*command, env=environment).stdout
    file, = (tmp_path / "cache").glob("nf4-*/model.safetensors")
    good = file.read_bytes()
    save_file({name: torch.zeros_like(tensor) if name.endswith("proj.weight") else tensor
               for name, tensor in load_file(file).items()}, file)
    assert run(*command, env=environment).stdout != first
    file.write_bytes(good[:-10])
    assert run(*command, env=environment).stdout == first
    assert file.read_bytes() == good


def load_quantized(folder, double_quant=True, **options):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                      bnb_4bit_use_double_quant=double_quant,
                                      bnb_4bit_compute_dtype=torch.float32, **options)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                quantization_config=quantization, device_map="cpu").eval()


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "phi3", "gpt2", "gpt_neox"])
def test_likelihoods(tmp_path, data, name):
    """Also of GPT-2, whose transposed weights transformers turns round before it quantizes them."""
    model = family.make(tmp_path / "model", name)
    encoded = peer.encode(model, ROWS)
    ours = predictions(tmp_path, model, data, "quantization=nf4")["base"]
    theirs = peer.nlls(load_quantized(model), encoded)
    assert [row["nll"] for row in ours] == pytest.approx(theirs, rel=1e-5)
    assert theirs != pytest.approx(peer.nlls(peer.load(model), encoded), rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"double_quant": False}, {"bnb_4bit_quant_storage": torch.bfloat16}], ids=str)
def test_checkpoint_of_transformers(tmp_path, model, data, options):
    theirs = load_quantized(model, **options)
    theirs.save_pretrained(tmp_path / "quantized")
    toy.make_tokenizer(tmp_path / "quantized")
    expected = peer.nlls(theirs, peer.encode(model, ROWS))
    ours = predictions(tmp_path, tmp_path / "quantized", data)["base"]
    assert [row["nll"] for row in ours] == pytest.approx(expected, rel=1e-5)
    out = train(tmp_path, model_name_or_path=tmp_path / "quantized", datasets=[data], template="none", max_steps=3)
    assert metrics(out)[0]["loss"] > 0
    done = run("train", f"model_name_or_path={tmp_path / 'quantized'}", f"datasets={data}", "template=none",
               "method=full", f"output_dir={tmp_path / 'full'}", expect=2)
    assert "method: full trains them" in done.stderr


@pytest.mark.parametrize("config, method", [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes' fp4"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes' int8"),
    ({"quant_method": "gptq", "bits": 4}, "gptq"),
], ids=["fp4", "int8", "gptq"])
def test_other_quantizations_are_refused(tmp_path, data, config, method):
    model = toy.make_model(tmp_path / "model", quantization_config=config)
    done = run("eval", "--model", model, "--data", data, "template=none", expect=4)
    assert f"its weights are quantized with {method}" in done.stderr


def test_damaged_checkpoint_is_refused(tmp_path, model, data):
    folder = tmp_path / "quantized"
    load_quantized(model).save_pretrained(folder)
    toy.make_tokenizer(folder)
    whole, name = load_file(folder / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    state = f"{name}.quant_state.bitsandbytes__nf4"

    def stderr(**changes):
        tensors = {key: changes.get(key, tensor) for key, tensor in whole.items()}
        tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return run("eval", "--model", folder, "--data", data, "template=none", expect=4).stderr

    def text(**fields):
        header = {**json.loads(bytes(whole[state])), **fields}
        return torch.tensor(list(json.dumps(header).encode()), dtype=torch.uint8)

    assert f"has no tensor {name}.absmax" in stderr(**{f"{name}.absmax": None})
    assert "of codes; expected" in stderr(**{name: whole[name][:-1].contiguous()})
    assert ".nested_absmax of 2 F32; expected 1 F32" in stderr(**{f"{name}.nested_absmax": torch.ones(2)})
    assert "that is not JSON" in stderr(**{state: torch.tensor([123], dtype=torch.uint8)})
    assert "blocks of 128 and 256" in stderr(**{state: text(blocksize=128)})
    assert "misshapen" in stderr(**{state: text(shape=[32, 48])})
    assert "not as bitsandbytes writes it" in stderr(**{state: text(nested_offset="x")})
    assert 'is of type "fp4"' in stderr(**{state: text(quant_type="fp4")})
    table = f"{name}.quant_map"
    fp4 = functional.get_4bit_type("fp4", device="cpu")
    assert "that is not the table of NF4" in stderr(**{table: fp4})
    assert "that is not the table of NF4" in stderr(**{table: whole[table].flip(0).contiguous()})
    assert ".quant_map of 15 F32; expected 16 F32" in stderr(**{table: whole[table][:15].contiguous()})
    whole[f"{name}.quant_state.bitsandbytes__fp4"] = whole.pop(state)
    assert f"the weight {name} is quantized in bitsandbytes' fp4" in stderr()


def nlls(rows):
    return [row["nll"] for row in rows]


def save_quantized(folder, base, **options):
    """The NF4 checkpoint that transformers makes of a base; its folder."""
    kept = {key: options.pop(key) for key in ("max_shard_size",) if key in options}
    load_quantized(base, **options).save_pretrained(folder, **kept)
    toy.make_tokenizer(folder)
    return folder


def open_checkpoint(folder):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                device_map="cpu").eval()


def train_adapter(tmp_path, base, data, **keys):
    return train(tmp_path, model_name_or_path=base, datasets=[data], template="none", max_steps=4, lora_rank=4,
                 learning_rate=2e-2, target_modules="all-linear", **keys)


# Name -> how the base is held: its family, options of the checkpoint (None: its files hold numbers), further settings.
HELD = {
    "numbers": ("llama", None, {"method": "qlora"}),
    "numbers, single": ("llama", None, {"method": "qlora", "double_quant": False}),
    "numbers, transposed": ("gpt2", None, {"method": "qlora"}),
    "numbers, fused, dora": ("phi3", None, {"method": "qlora", "use_dora": True}),
    "numbers, head too": ("qwen2", None, {"method": "qlora", "modules_to_save": ["lm_head"]}),
    "checkpoint": ("llama", {}, {}),
    "checkpoint, single, shards": ("llama", {"double_quant": False, "max_shard_size": "30KB"}, {}),
    "checkpoint, transposed": ("gpt2", {}, {}),
    "checkpoint, other storage": ("llama", {"bnb_4bit_quant_storage": torch.bfloat16}, {}),
}


@pytest.fixture(scope="module", params=HELD)
def qlora(request, tmp_path_factory, data):
    """(base, adapter trained over it, its likelihoods here over the quantized base)."""
    name, checkpoint, settings = HELD[request.param]
    folder = tmp_path_factory.mktemp("qlora")
    base = family.make(folder / "base", name)
    if checkpoint is not None:
        base = save_quantized(folder / "quantized", base, **checkpoint)
    out = train_adapter(folder, base, data, **settings)
    more = [] if checkpoint is not None else ["quantization=nf4", f"double_quant={settings.get('double_quant', True)}"]
    rows = predictions(folder, base, data, *more, adapter=out)
    assert nlls(rows["adapter"]) != pytest.approx(nlls(rows["base"]), rel=1e-3)
    return base, out, nlls(rows["adapter"])


def test_merged_into_the_dequantized_base(tmp_path, data, qlora):
    base, adapter, live = qlora
    done = run("merge", "--model", base, "--adapter", adapter, "--output", tmp_path / "merged")
    assert "were quantized in training; the update was added to the dequantized ones" in done.stdout
    assert "quantization_config" not in json.loads((tmp_path / "merged/config.json").read_text())
    assert nlls(predictions(tmp_path, tmp_path / "merged", data)["base"]) == pytest.approx(live, rel=1e-5)
    theirs = peer.load(tmp_path / "merged")
    assert peer.nlls(theirs, peer.encode(base, ROWS)) == pytest.approx(live, rel=1e-5)


def test_merged_and_requantized(tmp_path, data, qlora):
    """The checkpoint's bits are those that bitsandbytes makes of the merged weights, and transformers opens it."""
    base, adapter, live = qlora
    done = run("merge", "--model", base, "--adapter", adapter, "--output", tmp_path / "nf4", "--requantize")
    assert "the sum quantized to NF4 again" in done.stdout and "changed the update by" in done.stdout
    run("merge", "--model", base, "--adapter", adapter, "--output", tmp_path / "merged")
    config = json.loads((tmp_path / "nf4/config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "bitsandbytes" and config["bnb_4bit_quant_type"] == "nf4"
    opened, whole = open_checkpoint(tmp_path / "nf4"), peer.load(tmp_path / "merged")
    compared = 0
    for name, module in opened.named_modules():
        if type(module).__name__ != "Linear4bit":
            continue
        weight = whole.get_submodule(name).weight.detach()
        weight = weight.T.contiguous() if type(whole.get_submodule(name)).__name__ == "Conv1D" else weight
        codes, _ = quantize(weight, config["bnb_4bit_use_double_quant"])
        assert torch.equal(module.weight.data.view(torch.uint8).flatten(), codes.flatten()), name
        compared += 1
    assert compared > 0
    ours = nlls(predictions(tmp_path, tmp_path / "nf4", data)["base"])
    assert ours == pytest.approx(peer.nlls(opened, peer.encode(base, ROWS)), rel=1e-5)
    assert ours == pytest.approx(live, rel=0.2) and ours != pytest.approx(live, rel=1e-4)


def test_merge_says_which_base(tmp_path, model, data):
    out = train_adapter(tmp_path, model, data, method="qlora")
    plain = nlls(predictions(tmp_path, model, data, adapter=out)["adapter"])
    run("merge", "--model", model, "--adapter", out, "--output", tmp_path / "merged", "--quantization", "none")
    assert nlls(predictions(tmp_path, tmp_path / "merged", data)["base"]) == pytest.approx(plain, rel=1e-5)
    int8 = train_adapter(tmp_path / "int8", model, data, quantization="int8")
    live = nlls(predictions(tmp_path, model, data, "quantization=int8", adapter=int8)["adapter"])
    run("merge", "--model", model, "--adapter", int8, "--output", tmp_path / "int8/merged")
    assert nlls(predictions(tmp_path, tmp_path / "int8/merged", data)["base"]) == pytest.approx(live, rel=1e-5)
    done = run("merge", "--model", model, "--adapter", int8, "--output", tmp_path / "no", "--requantize", expect=2)
    assert "trained over quantization: int8; expected nf4" in done.stderr
    done = run("merge", "--model", model, "--adapter", int8, "--adapter", out, "--output", tmp_path / "no", expect=2)
    assert "say with --quantization which of these bases" in done.stderr


def test_loftq_begins_as_peft_does(tmp_path, model, data):
    """The start is the best low-rank part of what quantization lost: PEFT's decomposition of W - Q. (PEFT's
    replace_lora_weights_loftq itself wants a GPU; this is what it computes there.)"""
    from peft.utils.loftq_utils import _low_rank_decomposition
    rank, alpha = 4, 6
    out = train(tmp_path, model_name_or_path=model, datasets=[data], template="none", max_steps=1, method="qlora",
                lora_rank=rank, lora_alpha=alpha, learning_rate=1e-30, optim="sgd", init_lora_weights="loftq",
                target_modules="all-linear")
    lora = load_file(out / "adapter_model.safetensors")
    for name, weight in linears(model).items():
        codes, state = quantize(weight, True)
        lost = weight - functional.dequantize_4bit(codes, state)
        theirs = _low_rank_decomposition(lost, reduced_rank=rank)
        stem = "base_model.model." + name.removesuffix(".weight")
        a, b = lora[f"{stem}.lora_A.weight"], lora[f"{stem}.lora_B.weight"]
        torch.testing.assert_close(alpha / rank * b @ a, theirs["L"] @ theirs["R"], rtol=1e-4, atol=1e-6)
        left = torch.linalg.matrix_norm(lost - alpha / rank * b @ a)
        best = torch.linalg.svdvals(lost)[rank:].norm()
        assert left == pytest.approx(best.item(), rel=1e-4)
    original = nlls(predictions(tmp_path, model, data)["base"])
    rows = predictions(tmp_path, model, data, "quantization=nf4", adapter=out)
    plain, begun = nlls(rows["base"]), nlls(rows["adapter"])

    def distance(other):
        return sum((x - y) ** 2 for x, y in zip(original, other))
    assert distance(begun) < distance(plain)


def curve(model, encoded, steps, rate, batch):
    parameters = list(peer.trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    for step in range(steps):
        first = step * batch % len(encoded)
        loss = peer.mean_loss(model, encoded[first:first + batch])
        optimizer.zero_grad()
        loss.backward()
        yield loss.item()
        optimizer.step()


def train_curve(tmp_path, model, data, adapter, steps, rate, batch, **keys):
    out = train(tmp_path, model_name_or_path=model, datasets=[data], template="none", shuffle=False,
                init_lora_weights=adapter, learning_rate=rate, max_steps=steps, lr_scheduler_type="constant",
                weight_decay=0.0, max_grad_norm=0, per_device_train_batch_size=batch, **keys)
    return [line["loss"] for line in metrics(out)]


def test_fifty_steps_with_peft_and_bitsandbytes(tmp_path, model, data):
    from peft import PeftModel
    steps, rate, batch = 50, 5e-3, 4
    adapter = peer.make_adapter(tmp_path / "adapter", model, target_modules="all-linear")
    ours = train_curve(tmp_path, model, data, adapter, steps, rate, batch, method="qlora")
    theirs = PeftModel.from_pretrained(load_quantized(model), adapter, is_trainable=True).train()
    theirs = list(curve(theirs, peer.encode(model, ROWS), steps, rate, batch))
    print("largest difference", max(abs(a - b) / b for a, b in zip(ours, theirs)))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert theirs[-1] < theirs[0] * 0.9
    dense = train_curve(tmp_path / "dense", model, data, adapter, steps, rate, batch)
    assert ours != pytest.approx(dense, rel=1e-3)


def test_fifty_steps_of_a_real_model(tmp_path, data):
    from peft import PeftModel
    base = SHARED_DIR / "data/models/stories260K-llama-hf"
    if not base.is_dir():
        pytest.skip(f"no {base}")
    steps, rate, batch = 50, 1e-2, 2
    texts = ["Once upon a time, there was a cat.", "Lily and Tom went to the park to play with a red ball."]
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": text, "completion": " The end."} for text in texts])
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded = []
    for text in texts:
        plain = tokenizer(text + " The end.", add_special_tokens=False, return_offsets_mapping=True)
        encoded.append(([tokenizer.bos_token_id, *plain["input_ids"], tokenizer.eos_token_id],
                        [False, *(end > len(text) for _, end in plain["offset_mapping"]), True]))
    adapter = peer.make_adapter(tmp_path / "adapter", base)
    ours = train_curve(tmp_path, base, rows, adapter, steps, rate, batch, load_in_4bit=True)
    theirs = PeftModel.from_pretrained(load_quantized(base), adapter, is_trainable=True).train()
    theirs = list(curve(theirs, encoded, steps, rate, batch))
    print("largest difference", max(abs(a - b) / b for a, b in zip(ours, theirs)))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_int8_is_close_to_dense(tmp_path, model, data):
    dense, approximate = (predictions(tmp_path, model, data, f"quantization={word}")["base"] for word in ("none", "int8"))
    assert [row["nll"] for row in approximate] == pytest.approx([row["nll"] for row in dense], rel=1e-2)
    assert approximate != dense
    adapter = peer.make_adapter(tmp_path / "adapter", model)
    ours, exact = (train_curve(tmp_path / word, model, data, adapter, 20, 5e-3, 4, quantization=word)
                   for word in ("int8", "none"))
    assert ours == pytest.approx(exact, rel=1e-2)


def test_all_methods_say_what_they_hold(tmp_path, model, data):
    done = run("eval", "--model", model, "--data", data, "template=none", "quantization=nf4")
    assert "quantized" in done.stderr and "less than in" in done.stderr
    done = run("train", f"model_name_or_path={model}", f"datasets={data}", "method=full", "quantization=nf4",
               f"output_dir={tmp_path / 'out'}", expect=2)
    assert "method: full trains them" in done.stderr
