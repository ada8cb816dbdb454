"""The same computations by transformers and PEFT, in float32 on the CPU."""

import json

import sentencepiece
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

torch.set_num_threads(2)


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def load_with_adapter(folder, adapter, trainable=False):
    return PeftModel.from_pretrained(load(folder), adapter, is_trainable=trainable).eval()


def encode(folder, rows):
    """(ids, supervised) of prompt/completion rows with `template: none`: <s>, the two texts, </s>.
    A token that holds any character of the completion is supervised, and so is </s>."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    encoded = []
    for row in rows:
        text = row["prompt"] + row["completion"]
        pieces = processor.encode(text, return_type="proto").pieces
        start = len(row["prompt"].encode())  # pieces count bytes
        # Byte pieces of one character: all but the last have an empty range at its beginning.
        ends = [piece.end if piece.end > piece.begin else piece.begin + 1 for piece in pieces]
        ids = [processor.bos_id(), *(piece.id for piece in pieces), processor.eos_id()]
        encoded.append((ids, [False, *(end > start for end in ends), True]))
    return encoded


def nll_sum(model, ids, supervised):
    """Summed cross entropy of the supervised tokens of one sequence, in nats (a tensor)."""
    logits = model(torch.tensor([ids])).logits[0, :-1].float()
    targets = torch.tensor(ids[1:])
    keep = torch.tensor(supervised[1:])
    return torch.nn.functional.cross_entropy(logits[keep], targets[keep], reduction="sum")


def nlls(model, encoded):
    with torch.no_grad():
        return [nll_sum(model, *row).item() for row in encoded]


def mean_loss(model, encoded):
    """Mean over all supervised tokens of the rows."""
    total = sum(nll_sum(model, *row) for row in encoded)
    return total / sum(sum(supervised) for _, supervised in encoded)


def make_adapter(folder, base, seed=0, **options):
    """A PEFT adapter whose two factors both differ from zero; returns its folder."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], **options}
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder


def trainable(model):
    """Name as in adapter_model.safetensors -> parameter."""
    return {name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): parameter
            for name, parameter in model.named_parameters() if parameter.requires_grad}


def change_config(folder, **changes):
    """Edits config.json; a value of None removes the key."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def silence():
    """No progress bars and notices of transformers."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
