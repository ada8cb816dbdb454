"""`finetune init --from FILE`: configurations of Axolotl, LLaMA-Factory and TRL become ours."""

import json
import re

import program
import pytest
import yaml

AXOLOTL = """\
base_model: MODEL
model_type: AutoModelForCausalLM
tokenizer_type: AutoTokenizer
load_in_8bit: false
load_in_4bit: true
strict: false
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_modules_to_save:
datasets:
  - path: support.jsonl
    type:
      field_instruction: question
      field_output: answer
      format: "Q: {instruction}"
  - path: someone/cluster-chats
    type: chat_template
    split: train
    field_messages: turns
    message_property_mappings: {role: from, content: value}
    roles_to_train: [assistant]
  - path: json
    data_files: [a.jsonl, b.jsonl]
    ds_type: json
test_datasets:
  - path: heldout.jsonl
    type: alpaca
dataset_prepared_path: last_run_prepared
output_dir: ./outputs/mine
sequence_len: 4096
sample_packing: true
eval_sample_packing: false
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_8bit
lr_scheduler: cosine
cosine_min_lr_ratio: 0.1
learning_rate: 2e-4
train_on_inputs: false
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.01
neftune_noise_alpha: 5
early_stopping_patience: 3
fsdp_config: {fsdp_offload_params: true}
special_tokens: {pad_token: "<|end_of_text|>"}
relora_steps: 150
"""

LLAMA_FACTORY = """\
### model
model_name_or_path: MODEL
trust_remote_code: true
quantization_bit: 8

### method
stage: sft
do_train: true
finetuning_type: lora
lora_target: q_proj,v_proj

### dataset
dataset: tickets, chats, raw, elsewhere
dataset_dir: sets
template: qwen
cutoff_len: 1024
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/mine
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
mask_history: true
temperature: 0.7

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""

DATASET_INFO = {
    "tickets": {"file_name": "tickets.json", "columns": {"prompt": "question", "query": "", "response": "answer"}},
    "chats": {"file_name": "chats.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"},
              "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}},
    "raw": {"hf_hub_url": "someone/raw", "formatting": "sharegpt", "num_samples": 50},
}

TRL = """\
model_name_or_path: MODEL
torch_dtype: bfloat16
attn_implementation: flash_attention_2
use_peft: true
load_in_4bit: true
lora_r: 8
lora_task_type: CAUSAL_LM
dataset_name: rows.jsonl
packing: true
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
per_device_train_batch_size: 4
eval_strategy: steps
eval_steps: 50
load_best_model_at_end: true
output_dir: trl-out
push_to_hub: false
run_name: mine
optim: adafactor
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.2}
"""


def values(text):
    """YAML 1.1 takes 1e-06 for a text; it is a number here."""
    def number(value):
        return float(value) if isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value) else value
    return {key: number(value) for key, value in yaml.safe_load(text).items()}


def imported(folder, text, *files):
    """The file that comes out, its values, what stands on standard error, and what train makes of it."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (folder / "theirs.yaml").write_text(text.replace("MODEL", str(model)))
    done = program.run("init", "--from", "theirs.yaml", cwd=folder)
    (folder / "ours.yaml").write_text(done.stdout)
    shown = program.run("train", "--show-config", "--config", "ours.yaml", cwd=folder)
    assert "[config]" not in shown.stderr, shown.stderr  # no key is another's spelling any more
    return done.stdout, values(done.stdout), done.stderr, values(shown.stdout)


def test_axolotl(tmp_path):
    text, ours, said, shown = imported(tmp_path, AXOLOTL)
    assert "a configuration of Axolotl" in said
    expected = {"method": "lora", "quantization": "nf4", "lora_rank": 32, "lora_alpha": 16, "lora_dropout": 0.05,
                "target_modules": "all-linear", "max_length": 4096, "overlength": "drop",
                "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 4,
                "optim": "adamw_8bit", "lr_scheduler_type": "cosine_with_min_lr", "min_lr_ratio": 0.1,
                "learning_rate": 0.0002, "gradient_checkpointing": True, "warmup_steps": 10, "weight_decay": 0.01,
                "neftune_noise_alpha": 5, "early_stopping_patience": 3, "output_dir": "./outputs/mine",
                "train_on_prompt": False, "load_best_model_at_end": False}
    assert {key: ours[key] for key in expected} == expected
    assert {key: shown[key] for key in expected} == expected
    assert ours["datasets"] == [
        {"path": "support.jsonl", "format": "alpaca", "fields": {"instruction": "question", "output": "answer"}},
        {"path": "cluster-chats.jsonl", "format": "messages", "fields": {"messages": "turns", "role": "from", "content": "value"}},
        {"path": "a.jsonl"}, {"path": "b.jsonl"}]
    assert ours["eval_datasets"] == [{"path": "heldout.jsonl", "format": "alpaca"}]
    assert "wandb" not in text and "lora_modules_to_save" not in text and "tf32" not in text
    for word in ("flash_attention: true: attention is chosen", "someone/cluster-chats: a name on a hub", "evals_per_epoch: 4",
                 'format: Q: {instruction}', "relora_steps: 150: nothing like it", "fsdp_config", "special_tokens"):
        assert word in text and word in said
    line = AXOLOTL.splitlines().index("relora_steps: 150") + 1
    assert f"theirs.yaml:{line}: relora_steps" in said
    assert re.search(r"^lora_rank: 32 +# lora_r$", text, re.MULTILINE)
    assert re.search(r"^overlength: drop +# what Axolotl does without it$", text, re.MULTILINE)


def test_llama_factory(tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/dataset_info.json").write_text(json.dumps(DATASET_INFO))
    text, ours, said, shown = imported(tmp_path, LLAMA_FACTORY)
    assert "a configuration of LLaMA-Factory" in said
    expected = {"method": "lora", "quantization": "int8", "stage": "sft", "target_modules": ["q_proj", "v_proj"],
                "lora_rank": 8, "lora_alpha": 16, "template": "qwen", "max_length": 1024, "overlength": "truncate",
                "eval_split": 0.1, "eval_steps": 500, "save_steps": 500, "learning_rate": 0.0001, "dtype": "bfloat16",
                "num_train_epochs": 3, "warmup_ratio": 0.1, "overwrite_output_dir": True, "load_best_model_at_end": False}
    assert {key: ours[key] for key in expected} == expected
    assert {key: shown[key] for key in expected} == expected
    assert ours["datasets"] == [
        {"path": "sets/tickets.json", "format": "alpaca", "fields": {"instruction": "question", "output": "answer"}},
        {"path": "sets/chats.jsonl", "format": "messages"}, {"path": "raw.jsonl", "format": "conversations"},
        {"path": "elsewhere.jsonl"}]
    for word in ("elsewhere", "num_samples: 50", "mask_history: true: nothing like it", "temperature: 0.7", "max_samples"):
        assert word in text and word in said
    assert "do_train" not in text and "temperature" not in ours


def test_trl(tmp_path):
    text, ours, said, shown = imported(tmp_path, TRL)
    assert "a configuration of TRL" in said
    expected = {"method": "lora", "quantization": "nf4", "double_quant": False, "dtype": "bfloat16", "lora_rank": 8,
                "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"], "per_device_train_batch_size": 4,
                "max_length": 1024, "overlength": "truncate", "learning_rate": 2e-5, "warmup_ratio": 0,
                "lr_scheduler_type": "cosine_with_min_lr", "min_lr_ratio": 0.2, "datasets": [{"path": "rows.jsonl"}]}
    assert {key: ours[key] for key in expected} == expected
    assert {key: shown[key] for key in expected} == expected
    for word in ("optim: adafactor: ", "load_best_model_at_end: true: there are no evaluation data", "the test split",
                 "packing: true: batches here are never padded", "assistant_only_loss is not given", "use_reentrant"):
        assert word in text and word in said
    assert "push_to_hub" not in text and "optim" not in ours and "load_best_model_at_end" not in ours


@pytest.mark.parametrize("theirs, expected", [
    ("base_model: MODEL\nrl: dpo\nrl_beta: 0.2\nadapter: lora\nsequence_len: 64\n",
     {"stage": "dpo", "beta": 0.2, "method": "lora", "max_length": 64}),
    ("base_model: MODEL\nadapter:\nsequence_len: 64\nunfrozen_parameters: ['^lm_head.weight$', model.layers.1]\n",
     {"method": "full", "trainable_modules": "(^lm_head.weight$|model.layers.1).*"}),
    ("base_model: MODEL\nadapter: lora\nsequence_len: 64\nlora_model_dir: earlier\nchat_template: tokenizer_default\n",
     {"init_lora_weights": "earlier", "template": "auto"}),
    ("model_name_or_path: MODEL\nstage: dpo\npref_loss: simpo\nsimpo_gamma: 0.7\nfinetuning_type: lora\ncutoff_len: 64\n",
     {"stage": "simpo", "simpo_gamma": 0.7, "learning_rate": 5e-5}),
    ("model_name_or_path: MODEL\nstage: pt\nfinetuning_type: freeze\ncutoff_len: 64\npissa_init: false\n",
     {"stage": "sft", "method": "full", "freeze_trainable_layers": 2}),
    ("model_name_or_path: MODEL\nstage: sft\nfinetuning_type: lora\nlora_rank: 4\npissa_init: true\ncutoff_len: 64\n",
     {"init_lora_weights": "pissa_niter_16", "lora_alpha": 8}),
    ("model_name_or_path: MODEL\nbeta: 0.3\ndataset_name: pairs.jsonl\nmax_prompt_length: 32\n",
     {"stage": "dpo", "beta": 0.3, "method": "full", "learning_rate": 1e-6}),
    ("model_name_or_path: MODEL\nloss_type: ipo\nbeta: 0.3\nuse_peft: true\ndataset_name: pairs.jsonl\n", {"stage": "ipo"}),
])
def test_stages_and_methods(tmp_path, theirs, expected):
    _, ours, _, shown = imported(tmp_path, theirs)
    assert {key: ours[key] for key in expected} == expected
    assert {key: shown[key] for key in expected} == expected


def test_what_is_no_configuration_of_them(tmp_path):
    for text, words in (("colour: green\n", "none of its keys"), ("- a\n", "key: value"), ("a: [\n", "not YAML"),
                        ("method: lora\nmodel_name_or_path: x\n", "already")):
        (tmp_path / "x.yaml").write_text(text)
        assert words in program.run("init", "--from", tmp_path / "x.yaml", expect=2).stderr
    assert "no such" in program.run("init", "--from", tmp_path / "y.yaml", expect=2).stderr
    assert "excludes" in program.run("init", "--from", "x", "--method", "full", expect=2).stderr


def test_a_missing_model_and_a_missing_dataset_info_are_said(tmp_path):
    theirs = "model_name_or_path: someone/model-8b\nstage: sft\ndataset: rows\ntemplate: deepseek3\ncutoff_len: 8\n"
    text, ours, said, _ = imported(tmp_path, theirs)
    assert ours["model_name_or_path"] == "someone/model-8b" and "download" in said
    assert "dataset_info.json" in said and ours["datasets"] == [{"path": "rows.jsonl"}]
    assert ours["template"] == "auto" and "template: deepseek3: the model's own chat template" in text
