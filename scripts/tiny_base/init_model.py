"""Writes a Llama model folder with random weights, the start of data/tiny-base.

The weights are random, and two of the attention layers begin near what such models learn first anyway
("induction heads", Olsson et al., 2022): heads of the first layer lean towards the previous token, heads of the
second towards places whose previous token equals the current one, and what these read goes to the output. Every
token's vector is random, so nothing is known of any word or of any format. This replaces many millions of
tokens of pretraining, after which copying appears by itself (in the manner of "Mimetic initialization of
self-attention layers", Trockman and Kolter, 2023). A trained model of this size still has to learn which
value belongs where.
"""

import argparse
import json
import math
import pathlib

import torch
from safetensors.torch import save_file

ROPE_THETA = 1e6  # many slow frequencies: equal tokens find each other at any distance
CONSTANT = 2.0    # a coordinate that all tokens share, beside random content of length one
PREVIOUS_SHARPNESS, MATCH_SHARPNESS, COPY_STRENGTH = 30.0, 60.0, 8.0
FAST, SLOW = 0.02, 0.0075  # frequencies (radians a token) that tell neighbours apart; that hardly turn


def configuration(arguments, vocab_size: int) -> dict:
    heads = arguments.hidden // arguments.head_dim
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size,
        "hidden_size": arguments.hidden, "intermediate_size": arguments.intermediate,
        "num_hidden_layers": arguments.layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "head_dim": arguments.head_dim, "hidden_act": "silu", "max_position_embeddings": arguments.max_length,
        "initializer_range": arguments.std, "rms_norm_eps": 1e-5, "rope_theta": ROPE_THETA, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "use_cache": True, "torch_dtype": "float32",
    }


class RandomStart:
    """Draws all weights. The residual stream is [constant, content, previous token's content, free]."""

    def __init__(self, config: dict, seed: int):
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        self.heads = config["num_attention_heads"]
        count = (self.hidden - 2) // 2
        self.content = torch.arange(1, 1 + count)
        self.previous = self.content + count
        self.frequencies = ROPE_THETA ** (-torch.arange(0, self.head_dim, 2).double() / self.head_dim)

    def normal(self, rows: int, columns: int, std: float) -> torch.Tensor:
        return torch.randn(rows, columns, generator=self.generator) * std

    def embeddings(self) -> torch.Tensor:
        count = len(self.content)
        table = self.normal(self.config["vocab_size"], self.hidden, self.config["initializer_range"] / 2)
        table[:, self.content] += self.normal(len(table), count, count ** -0.5)
        table[:, 0] += CONSTANT
        return table

    def layer(self) -> dict:
        std, inner = self.config["initializer_range"], self.config["intermediate_size"]
        residual_std = std / (2 * self.config["num_hidden_layers"]) ** 0.5
        shapes = {"self_attn.q_proj": (self.hidden, self.hidden, std), "self_attn.k_proj": (self.hidden, self.hidden, std),
                  "self_attn.v_proj": (self.hidden, self.hidden, std),
                  "self_attn.o_proj": (self.hidden, self.hidden, residual_std),
                  "mlp.gate_proj": (inner, self.hidden, std), "mlp.up_proj": (inner, self.hidden, std),
                  "mlp.down_proj": (self.hidden, inner, residual_std)}
        return {name: self.normal(*shape) for name, shape in shapes.items()}

    def lean_to_previous(self, layer: dict) -> None:
        """Queries and keys of the shared coordinate, the keys turned by one position; values carry the content."""
        rms = math.sqrt((1 + CONSTANT ** 2) / self.hidden)
        amplitude = math.sqrt(PREVIOUS_SHARPNESS * math.sqrt(self.head_dim)) * rms / CONSTANT
        half = self.head_dim // 2
        for head in range(self.heads):
            for index, frequency in enumerate(self.frequencies.tolist()):
                if frequency <= FAST:
                    continue
                row = head * self.head_dim + index
                layer["self_attn.q_proj"][row, 0] += amplitude
                layer["self_attn.k_proj"][row, 0] += amplitude * math.cos(frequency)
                layer["self_attn.k_proj"][row + half, 0] += amplitude * math.sin(frequency)
        self.carry_content(layer, self.previous, rms)

    def lean_to_matches(self, layer: dict) -> None:
        """Queries of the content meet keys of the previous token's content in slow frequencies."""
        rms = math.sqrt((2 + CONSTANT ** 2) / self.hidden)
        slow = [index for index, frequency in enumerate(self.frequencies.tolist()) if frequency < SLOW]
        slots = slow + [self.head_dim // 2 + index for index in slow]
        scale = math.sqrt(MATCH_SHARPNESS * math.sqrt(self.head_dim)) * rms
        for head in range(self.heads):
            projection = self.normal(len(slots), len(self.content), len(slots) ** -0.5)
            for row, direction in zip(slots, projection, strict=True):
                layer["self_attn.q_proj"][head * self.head_dim + row, self.content] += scale * direction
                layer["self_attn.k_proj"][head * self.head_dim + row, self.previous] += scale * direction
        self.carry_content(layer, self.content, COPY_STRENGTH * rms)

    def carry_content(self, layer: dict, target: torch.Tensor, strength: float) -> None:
        """Values read the content, each head a part of it; the output matrix writes it to `target`."""
        part = math.ceil(len(self.content) / self.heads)
        for index in range(len(self.content)):
            row = index // part * self.head_dim + index % part
            layer["self_attn.v_proj"][row, self.content[index]] += 1.0
            layer["self_attn.o_proj"][target[index], row] += strength

    def weights(self) -> dict:
        tensors = {"model.embed_tokens.weight": self.embeddings()}
        layers = [self.layer() for _ in range(self.config["num_hidden_layers"])]
        self.lean_to_previous(layers[0])
        self.lean_to_matches(layers[1])
        for index, layer in enumerate(layers):
            tensors.update({f"model.layers.{index}.{name}.weight": value for name, value in layer.items()})
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"model.layers.{index}.{name}.weight"] = torch.ones(self.hidden)
        tensors["model.norm.weight"] = torch.ones(self.hidden)
        return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the model folder; it already holds the tokenizer")
    parser.add_argument("--vocab-size", type=int, default=3072)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--std", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(arguments, arguments.vocab_size)
    weights = RandomStart(config, arguments.seed).weights()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{folder}: {sum(tensor.numel() for tensor in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
