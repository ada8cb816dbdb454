"""Writes a Llama model folder with random weights, the start of data/tiny-base.

Small matrices of one hidden size, tied embeddings and full multi-head attention: copying a value is
the work of attention heads, and the tied table lets a copied embedding be its own output.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file


def configuration(arguments, vocab_size: int) -> dict:
    heads = arguments.hidden // 32
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size,
        "hidden_size": arguments.hidden, "intermediate_size": arguments.intermediate,
        "num_hidden_layers": arguments.layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "head_dim": 32, "hidden_act": "silu", "max_position_embeddings": arguments.max_length,
        "initializer_range": arguments.std, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "use_cache": True, "torch_dtype": "float32",
    }


def random_weights(config: dict, seed: int) -> dict:
    """Normal weights; the two matrices that write to the residual stream start smaller."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    std = config["initializer_range"]
    residual_std = std / (2 * config["num_hidden_layers"]) ** 0.5

    def normal(rows: int, columns: int, scale: float) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * scale

    weights = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, std)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"{prefix}self_attn.{name}.weight"] = normal(hidden, hidden, std)
        weights[f"{prefix}self_attn.o_proj.weight"] = normal(hidden, hidden, residual_std)
        for name in ("gate_proj", "up_proj"):
            weights[f"{prefix}mlp.{name}.weight"] = normal(inner, hidden, std)
        weights[f"{prefix}mlp.down_proj.weight"] = normal(hidden, inner, residual_std)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the model folder; it already holds the tokenizer")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--std", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(arguments, arguments.vocab_size)
    weights = random_weights(config, arguments.seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{folder}: {sum(tensor.numel() for tensor in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
