"""Copies a pretrained folder to its place: weights as bfloat16, and only the files a model folder needs."""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="the folder the training began with")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    weights = load_file(arguments.trained / "model.safetensors")
    weights.pop("lm_head.weight", None)  # the embedding table is the head
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(weights.items())}
    save_file(weights, arguments.output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((arguments.tokenizer / "config.json").read_text(encoding="utf-8"))
    config["torch_dtype"] = "bfloat16"
    (arguments.output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(arguments.tokenizer / name, arguments.output / name)


if __name__ == "__main__":
    main()
