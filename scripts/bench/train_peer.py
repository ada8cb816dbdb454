"""One training run by a peer, for scripts/bench/train: python train_peer.py JOB.json

Prints one JSON object: the steps (loss, grad_norm, seconds), the time from the start of the process to the end of the
first step, and the peak of the resident memory. Arms:
  loop       transformers and PEFT, one row after the other without padding, no checkpointing; without an adapter
             all weights are trained
  batch      the same with the rows of a step in one batch
  trl        TRL's SFTTrainer as it comes: batches padded, activations recomputed, autocast for bfloat16
  trl-tuned  the same without recomputing, weights in the type of the products, one row at a time, accumulated
With "pairs" in the job, TRL's arms are those of its DPOTrainer.
"""

import json
import os
import resource
import sys
import time

JOB = json.load(open(sys.argv[1]))
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(JOB["threads"]))
START = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME)
                       - int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK"))

import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()
torch.set_num_threads(JOB["threads"])
DTYPE = getattr(torch, JOB["dtype"])
CUDA = JOB["device"] == "cuda"


def make_adapter():
    """The adapter that all runs start from; both factors differ from zero, so that every gradient does."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(JOB["model"], dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=JOB["rank"], lora_alpha=2 * JOB["rank"],
                                             target_modules=JOB["targets"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.01)
    model.save_pretrained(JOB["adapter"])


def load(dtype):
    model = AutoModelForCausalLM.from_pretrained(JOB["model"], dtype=dtype)
    if JOB["adapter"]:
        model = PeftModel.from_pretrained(model, JOB["adapter"], is_trainable=True)
    return model.to(JOB["device"])


def rows():
    """(input ids, labels) of every row, in order."""
    return [(row["input_ids"], [token if kept else -100 for token, kept in zip(row["input_ids"], row["supervised"])])
            for row in JOB["rows"]]


def report(steps, first):
    peak = torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"steps": steps, "first_step_seconds": first - START, "peak_memory_bytes": peak}))


def micro_batches(rows):
    """(ids, labels) [B, T] of the rows: each alone, or all in one batch (of one length)."""
    groups = [rows] if JOB["arm"] == "batch" else [[row] for row in rows]
    for group in groups:
        yield tuple(torch.tensor(part, device=JOB["device"]) for part in zip(*group))


def loop():
    model = load_quantized() if JOB["quantization"] == "nf4" else load(DTYPE)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=JOB["learning_rate"], weight_decay=0, fused=True)
    data, size, steps, first = rows(), JOB["rows_per_step"], [], None
    for begin in range(0, len(data), size):
        clock, total = time.time(), 0.0
        count = sum(label != -100 for _, labels in data[begin:begin + size] for label in labels[1:])
        for ids, labels in micro_batches(data[begin:begin + size]):
            logits = model(ids).logits[:, :-1].flatten(0, 1).float()
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / count
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"loss": total, "grad_norm": norm, "seconds": time.time() - clock})
        first = first or time.time()
    report(steps, first)


def load_quantized():
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=DTYPE)
    model = AutoModelForCausalLM.from_pretrained(JOB["model"], quantization_config=config, dtype=DTYPE,
                                                 device_map=JOB["device"])
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return PeftModel.from_pretrained(model, JOB["adapter"], is_trainable=True)


def trl():
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    import trl

    pairs = JOB.get("pairs")
    Config, Trainer = (trl.DPOConfig, trl.DPOTrainer) if pairs else (trl.SFTConfig, trl.SFTTrainer)
    tuned = JOB["arm"] == "trl-tuned"
    size = JOB["rows_per_step"]
    options = {"gradient_checkpointing": False} if tuned else {}
    config = Config(
        output_dir=JOB["work"], per_device_train_batch_size=1 if tuned else size,
        gradient_accumulation_steps=size if tuned else 1, learning_rate=JOB["learning_rate"], num_train_epochs=1,
        lr_scheduler_type="constant", bf16=DTYPE == torch.bfloat16 and not tuned, fp16=False, save_strategy="no",
        logging_steps=1, report_to="none", max_length=None, use_cpu=not CUDA, disable_tqdm=True, **options)
    steps, clock = [], [0.0, 0.0]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            clock[0] = time.time()

        def on_step_end(self, *_, **__):
            clock[1] = clock[1] or time.time()
            steps.append({"seconds": time.time() - clock[0]})

        def on_log(self, args, state, control, logs=None, **__):
            if logs and "loss" in logs:
                steps[-1].update(loss=float(logs["loss"]), grad_norm=float(logs["grad_norm"]))

    class InOrder(Trainer):
        def _get_train_sampler(self, *_, **__):
            return SequentialSampler(self.train_dataset)

        def _prepare_dataset(self, dataset, *rest, **options):
            return dataset if pairs else super()._prepare_dataset(dataset, *rest, **options)

    data = Dataset.from_list(pairs) if pairs else Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows()])
    # As it comes, a model given by name is loaded in float32 and cast by autocast where bfloat16 is asked for.
    model = load(DTYPE if tuned else torch.float32)
    tokenizer = __import__("transformers").AutoTokenizer.from_pretrained(JOB["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = InOrder(model=model, args=config, train_dataset=data, callbacks=[Clock()], processing_class=tokenizer)
    trainer.train()
    report(steps, clock[1])


if __name__ == "__main__":
    {"make-adapter": make_adapter, "loop": loop, "batch": loop, "trl": trl, "trl-tuned": trl}[JOB["arm"]]()
