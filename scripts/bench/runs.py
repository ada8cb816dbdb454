"""What the benchmarks share: made models, and one run of the program or of a peer."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
# hidden, layers, heads, key heads, head size, MLP, vocabulary, tied: stories15M, SmolLM2-135M, Qwen2.5-0.5B
SHAPES = {"15m": (288, 6, 6, 6, 48, 768, 32000, True), "135m": (576, 30, 9, 3, 64, 1536, 49152, True),
          "0.5b": (896, 24, 14, 2, 64, 4864, 151936, True)}
TARGETS = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
           "all-linear": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
RANK = 16
def make_model(folder, shape, dtype, tokenizer):
    """A Llama of that shape with random weights from a seed."""
    import torch
    from safetensors.torch import save_file
    hidden, layers, heads, key_heads, size, mlp, vocabulary, tied = SHAPES[shape]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads,
        "head_dim": size, "intermediate_size": mlp, "vocab_size": vocabulary, "tie_word_embeddings": tied,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "torch_dtype": dtype, "bos_token_id": 1, "eos_token_id": 2}))
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return (torch.randn(*shape, generator=generator) * 0.02).to(getattr(torch, dtype))
    tensors = {"model.embed_tokens.weight": random(vocabulary, hidden)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name, out, inner in (("self_attn.q_proj", heads * size, hidden), ("self_attn.k_proj", key_heads * size, hidden),
                                 ("self_attn.v_proj", key_heads * size, hidden), ("self_attn.o_proj", hidden, heads * size),
                                 ("mlp.gate_proj", mlp, hidden), ("mlp.up_proj", mlp, hidden), ("mlp.down_proj", hidden, mlp)):
            tensors[f"{layer}{name}.weight"] = random(out, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{name}.weight"] = torch.ones(hidden, dtype=getattr(torch, dtype))
    tensors["model.norm.weight"] = torch.ones(hidden, dtype=getattr(torch, dtype))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def encode(folder, pairs):
    """Ids and marks as `template: none` has them: the two texts joined, with the special tokens around them."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else []
    rows = []
    for prompt, answer in pairs:
        plain = tokenizer(prompt + answer, add_special_tokens=False, return_offsets_mapping=True)
        rows.append({"input_ids": [*begin, *plain["input_ids"], tokenizer.eos_token_id],
                     "supervised": [*(False for _ in begin), *(end > len(prompt) for _, end in plain["offset_mapping"]), True]})
    return rows


def run_finetune(job, binary):
    """The program on the job; waits for the first line of its metrics to time the start."""
    work = pathlib.Path(job["work"])
    shutil.rmtree(work, ignore_errors=True)
    settings = {"model_name_or_path": job["model"], "template": "none",
                "datasets": f"[{job['data']}]", "shuffle": "false", "per_device_train_batch_size": job["rows_per_step"],
                "num_train_epochs": 1, "learning_rate": job["learning_rate"], "lr_scheduler_type": "constant",
                "max_length": 8192, "dtype": job["dtype"], "device": job["device"], "quantization": job["quantization"],
                "output_dir": work, "num_threads": job["threads"], "save_steps": 1000000}
    if job["adapter"]:
        settings["init_lora_weights"] = job["adapter"]
    settings.update(job.get("settings", {}))
    command = [binary, "train", "--quiet", *(f"{key}={value}" for key, value in settings.items())]
    start = time.time()
    log = open(job["log"], "w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "FINETUNE_CACHE_DIR": ""})
    metrics, first = work / "metrics.jsonl", None
    while process.poll() is None and first is None:
        if metrics.exists() and b"\n" in metrics.read_bytes():
            first = time.time()
        time.sleep(0.002)
    if process.wait() != 0:
        raise RuntimeError(pathlib.Path(job["log"]).read_text()[-2000:])
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [{"loss": line["loss"], "grad_norm": line["grad_norm"], "seconds": line["step_seconds"]} for line in lines if "loss" in line]
    return {"steps": steps, "first_step_seconds": (first or time.time()) - start,
            "peak_memory_bytes": max(line["peak_memory_bytes"] for line in lines if "loss" in line)}


def run_peer(job):
    file = pathlib.Path(job["log"]).with_suffix(".json")
    file.write_text(json.dumps(job, default=str))
    done = subprocess.run([sys.executable, HERE / "train_peer.py", file], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout)[-1500:])
    return json.loads(done.stdout.splitlines()[-1]) if job["arm"] != "make-adapter" else None
