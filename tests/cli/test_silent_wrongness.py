"""What finishes with exit code 0 and is wrong elsewhere: which tokens are learned, weights of losses, threads."""

import json
import math
import re

import pytest
import toy
from program import metrics, run, snapshot, train, write_rows

WEIGHTS = ["adapter_model.safetensors"]
BYTES = [chr(c) if 33 <= c <= 126 or 161 <= c <= 172 or c >= 174 else None for c in range(256)]
_next = iter(range(0x100, 0x200))
BYTES = [c or chr(next(_next)) for c in BYTES]
SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
            "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>"]
# template -> what ends an answer
TEMPLATES = {"alpaca": "</s>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>", "llama2": "</s>", "llama3": "<|eot_id|>",
             "mistral": "</s>", "phi3": "<|end|>", "qwen": "<|im_end|>", "vicuna": "</s>"}


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """The toy model with a byte-level tokenizer that has every template's special tokens."""
    folder = toy.make_model(tmp_path_factory.mktemp("chat") / "model")
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "normalizer": None, "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "added_tokens": [{"id": 256 + i, "content": text, "special": True, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False} for i, text in enumerate(SPECIALS)],
        "post_processor": {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}},
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]},
        "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTES)}, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def trained_text(chat_model, data, template, *more):
    """The rows as `inspect data` marks them: lists of (is it trained, text)."""
    done = run("inspect", "data", f"model={chat_model}", f"datasets={data}", f"template={template}", "--samples", "20",
               "--json", *more)
    return json.loads(done.stdout)["datasets"][0]["samples"]


def spans(text):
    """Marked text as [(trained, text)]."""
    parts, trained = [], False
    for piece in re.split(r"(\[\[|\]\](?!\]))", text):  # a token may end in a bracket itself
        if piece in ("[[", "]]"):
            trained = piece == "[["
        elif piece:
            parts.append((trained, piece))
    return parts


ANSWERS = ["the first answer", "a second one: 1, 2, 3", "третий 答"]


def rows_of(template):
    """Rows of one and of several turns; one answer is also said by the user."""
    turns = [{"role": role, "content": text} for i, answer in enumerate(ANSWERS)
             for role, text in (("user", f"question {i} {ANSWERS[0]}"), ("assistant", answer))]
    return [{"messages": turns[:2]}, {"messages": turns[2:4]}] + ([] if template == "alpaca" else [{"messages": turns}])


@pytest.mark.parametrize("template", TEMPLATES)
def test_only_answers_and_their_ends_are_learned(tmp_path, chat_model, template):
    data = write_rows(tmp_path / "rows.jsonl", rows_of(template))
    end = TEMPLATES[template]
    samples = trained_text(chat_model, data, template)
    assert len(samples) == len(rows_of(template))
    for row, sample in zip(rows_of(template), samples):
        text = sample["text"]
        wanted = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        # Llama 2 has a blank between an answer and its end, which nothing is learned of.
        learned = "".join(part.strip() for trained, part in spans(text) if trained)
        assert learned == "".join(answer + end for answer in wanted), text
        prompts = "".join(part for trained, part in spans(text) if not trained)
        assert prompts.count("question ") == len(wanted)
        # Llama 2 begins every turn with one, as published.
        assert text.count("<s>") == (len(wanted) if template == "llama2" else 1), text
        assert text.startswith("<s>") and not text.startswith("<s><s>")


def test_prompt_and_completion_have_one_bos_and_one_end(tmp_path, chat_model):
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "pod =", "completion": " node"}, {"prompt": "<s>x", "completion": "y"}])
    for sample, (prompt, answer) in zip(trained_text(chat_model, data, "none"), [("pod =", " node"), ("x", "y")]):
        assert spans(sample["text"]) == [(False, "<s>" + prompt), (True, answer + "</s>")], sample["text"]


@pytest.fixture
def settings(model, rows_file):
    return {"model_name_or_path": model, "datasets": [rows_file], "template": "none", "lora_rank": 4,
            "learning_rate": 1e-2, "shuffle": False, "num_train_epochs": 1, "per_device_train_batch_size": 2}


@pytest.mark.parametrize("rows", [4, 5, 7])
def test_the_last_window_is_weighted_by_its_tokens(tmp_path, settings, rows):
    """The loss of a step is the mean over its tokens, for a window of one row as for one of four."""
    data = write_rows(tmp_path / "rows.jsonl", toy.rows(rows, seed=1))
    keys = {**settings, "datasets": [data], "optim": "sgd", "learning_rate": 1e-12}  # so that nothing moves
    steps = metrics(train(tmp_path / "a", **keys, gradient_accumulation_steps=2))
    assert len(steps) == math.ceil(rows / 4)
    done = run("eval", "--model", settings["model_name_or_path"], "--data", data, "template=none", "dtype=float32",
               "--predictions", tmp_path / "p.jsonl")
    scored = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for i, step in enumerate(steps):
        part = scored[4 * i:4 * i + 4]
        mean = sum(row["nll"] for row in part) / sum(row["supervised_tokens"] for row in part)
        assert step["loss"] == pytest.approx(mean, rel=1e-5), done.stdout


@pytest.mark.parametrize("sizes", [(1, 8), (2, 4), (4, 2)])
def test_the_loss_does_not_depend_on_accumulation(tmp_path, settings, sizes):
    batch, accumulation = sizes
    whole = metrics(train(tmp_path / "a", **{**settings, "per_device_train_batch_size": 8}))
    split = metrics(train(tmp_path / "b", **{**settings, "per_device_train_batch_size": batch},
                          gradient_accumulation_steps=accumulation))
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in whole] == pytest.approx([line[key] for line in split], rel=1e-4)


def test_evaluation_of_rows_in_any_company(tmp_path, model, rows_file):
    losses = []
    for size in (1, 5, 12):
        run("eval", "--model", model, "--data", rows_file, "template=none", "dtype=float32", "--json",
            tmp_path / "eval.json", f"per_device_eval_batch_size={size}")
        losses.append(json.loads((tmp_path / "eval.json").read_text())["results"][0]["loss"])
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-6)


def test_data_are_read_alike_by_any_number_of_threads(tmp_path, settings):
    """More rows than one block of the reader, every length, tokenized by 1, 2 and 4 threads: the same tokens."""
    data = write_rows(tmp_path / "rows.jsonl", toy.rows(1500, seed=2, low=1, high=12))
    hashes = set()
    for threads in (1, 2, 4):
        out = train(tmp_path / str(threads), **{**settings, "datasets": [data], "max_steps": 1}, num_threads=threads)
        state = json.loads((out / "checkpoint-1" / "trainer_state.json").read_text())
        hashes.add(state["settings"]["content of datasets"])
    assert len(hashes) == 1


def test_the_same_bytes_on_every_run(tmp_path, settings):
    results = [snapshot(train(tmp_path / name, **settings, lora_dropout=0.1), WEIGHTS) for name in "abc"]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("text, value", [("1e-4", 1e-4), ("1E-4", 1e-4), ("1.e-4", 1e-4), ("'1e-4'", 1e-4), (".0001", 1e-4),
                                         ("5", 5.0)])
def test_numbers_as_people_write_them(tmp_path, text, value):
    config = tmp_path / "c.yaml"
    config.write_text(f"learning_rate: {text}\n")
    done = run("train", "--config", config, "--show-config")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("learning_rate:")]
    assert float(line.split("#")[0].split(":")[1]) == value
