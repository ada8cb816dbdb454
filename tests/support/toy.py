"""Tiny Llama folders and data made from a seed, with numpy and safetensors only."""

import io
import json
import random

import numpy
import sentencepiece
from safetensors.numpy import save_file

WORDS = ("pod service node cluster image port deploy scale name space volume secret config map ingress rule "
         "host path label value count ready state probe limit request memory cpu job cron set replica 容器 集群 服务 "
         "节点 部署 镜像 端口 ä é").split()


def sentence(rng, words):
    return " ".join(rng.choice(WORDS) + rng.choice(["", "", ",", "-" + str(rng.randrange(100))])
                    for _ in range(words))


def rows(count, seed=0, low=3, high=12):
    """Prompt/completion rows of different lengths."""
    rng = random.Random(seed)
    return [{"prompt": sentence(rng, rng.randint(low, high)) + " =",
             "completion": " " + sentence(rng, rng.randint(low, high))} for _ in range(count)]


def instruction_rows(count, seed=0):
    rng = random.Random(seed)
    return [{"instruction": sentence(rng, 5), "input": sentence(rng, 2) if i % 2 else "", "output": sentence(rng, 6)}
            for i in range(count)]


def make_tokenizer(folder, vocab_size=400):
    """tokenizer.model and tokenizer_config.json in the Llama manner; returns the processor."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([sentence(rng, 10) for _ in range(500)]), model_writer=model,
        vocab_size=vocab_size, model_type="bpe", byte_fallback=True, character_coverage=0.9995,
        remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2, num_threads=1)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def llama_config(**changes):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
            "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 400, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
            "torch_dtype": "float32", **changes}


def llama_tensors(config, seed=0):
    """Name -> float32 array for a configuration; large enough weights that tokens differ in likelihood."""
    rng = numpy.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim

    def normal(*shape, scale=0.2):
        return (rng.standard_normal(shape) * scale).astype(numpy.float32)

    tensors = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, scale=0.5),
               "model.norm.weight": 1 + normal(hidden)}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = normal(config["vocab_size"], hidden, scale=0.5)
    for layer in range(config["num_hidden_layers"]):
        shapes = {"self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden),
                  "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries),
                  "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = normal(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = 1 + normal(hidden)
    return tensors


def make_model(folder, seed=0, **changes):
    """A model folder of float32 weights with a tokenizer; returns the folder."""
    config = llama_config(**changes)
    make_tokenizer(folder, config["vocab_size"])
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(llama_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
