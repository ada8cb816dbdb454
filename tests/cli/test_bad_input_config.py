"""Configurations that are wrong: exit code 2, the place, what was found, what was expected."""

import os

from bad_input import Case, table_of


def text(name, content, *says, code=2):
    """A configuration file of this text or these bytes."""
    return Case(name, code, says, lambda place: ["train", "--config", place.file("bad.yaml", content)])


def keys(name, *says, code=2, **changes):
    """A sound configuration with some keys changed; for what shows only beside the model."""
    return Case(name, code, says, lambda place: place.train(**changes))


def words(name, *arguments, says=(), code=2):
    return Case(name, code, says, lambda place: ["train", *arguments])


def made(name, make, *says):
    """`--config` names what `make(path)` makes."""
    def arrange(place):
        make(place.folder / "made.yaml")
        return ["train", "--config", place.folder / "made.yaml"]
    return Case(name, 2, says, arrange)


CASES = [
    # Keys.
    text("unknown key", "lora_rnak: 4\n", r"bad.yaml:1: unknown key 'lora_rnak'", "lora_rank"),
    text("unknown key of a section", "seed: 1\nlora:\n  rnak: 4\n", "bad.yaml:3", "rank"),
    text("key of another trainer", "deepspeed: ds.json\n", "bad.yaml:1", "deepspeed"),
    text("key twice", "seed: 1\nseed: 2\n", "bad.yaml:2", "given twice", "bad.yaml:1"),
    text("key twice in a section", "lora:\n  rank: 1\n  rank: 1\n", "bad.yaml:3", "given twice"),
    text("two spellings that differ", "lora_rank: 4\nr: 8\n", "bad.yaml:2", "lora_rank", "bad.yaml:1"),
    text("section and key that differ", "lora_rank: 4\nlora:\n  rank: 8\n", "bad.yaml:3", "bad.yaml:1"),
    text("key that is a number", "5: 6\n", "bad.yaml:1", "unknown key '5'"),
    text("key that is a list", "[1]: 2\n", "bad.yaml:1"),
    text("empty key", "'': 2\n", "bad.yaml:1", "unknown key ''"),
    text("forty unknown keys", "".join(f"key{i}: 1\n" for i in range(40)), "bad.yaml:1:", "and 30 more"),
    # Types and ranges.
    text("a word for a number", "learning_rate: fast\n", "bad.yaml:1", '"fast"', "expected a number"),
    text("a fraction for an integer", "lora_rank: 4.5\n", "bad.yaml:1", "integer"),
    text("true for an integer", "lora_rank: true\n", "bad.yaml:1", "integer"),
    text("a list for a number", "lora_rank: [4]\n", "bad.yaml:1", "a list"),
    text("a map for a number", "seed: {a: 1}\n", "bad.yaml:1"),
    text("a number for true or false", "shuffle: 2\n", "bad.yaml:1", "shuffle", "true"),
    text("below the range", "lora_rank: 0\n", "bad.yaml:1", "1 to 65536"),
    text("above the range", "lora_dropout: 1.5\n", "bad.yaml:1", "lora_dropout"),
    text("not a number", "learning_rate: .nan\n", "bad.yaml:1", "learning_rate"),
    text("infinity", "learning_rate: .inf\n", "bad.yaml:1", "learning_rate"),
    text("larger than a double", "learning_rate: 1e999\n", "bad.yaml:1", "learning_rate"),
    text("larger than 64 bits", "seed: 99999999999999999999\n", "bad.yaml:1", "seed"),
    text("hexadecimal", "seed: 0x1F\n", "bad.yaml:1", "seed"),
    text("number with rubbish", "seed: 12abc\n", "bad.yaml:1", "seed"),
    text("negative seed", "seed: -1\n", "bad.yaml:1", "seed"),
    text("no threads", "num_threads: 0\n", "bad.yaml:1", "num_threads"),
    text("unknown choice", "optim: adamm\n", "bad.yaml:1", "adamm", "adamw"),
    text("two choices", "optim: [adamw, sgd]\n", "bad.yaml:1", "optim"),
    text("bad size", "max_row_bytes: 64 MoB\n", "bad.yaml:1", "max_row_bytes"),
    text("negative size", "max_row_bytes: -5 MiB\n", "bad.yaml:1", "max_row_bytes"),
    text("whole data set held out", "eval_split: 1.0\n", "bad.yaml:1", "eval_split"),
    text("no grace", "interrupt_grace_seconds: 0\n", "bad.yaml:1", "interrupt_grace_seconds"),
    text("unknown way out of non-finite", "on_nonfinite: ignore\n", "bad.yaml:1", "stop, skip"),
    text("pattern that is a list", "rank_pattern: [1, 2]\n", "bad.yaml:1", "rank_pattern"),
    text("pattern of words", "rank_pattern: {q_proj: many}\n", "bad.yaml:1", "many"),
    text("no regular expression", "target_modules: '(q_proj'\n", "bad.yaml:1", "regular expression"),
    text("no target", "target_modules: []\nmodel: m\ndatasets: d\n", "target_modules is empty"),
    # The file itself.
    text("not YAML", "seed: [1\n", r"bad.yaml:\d", "not YAML"),
    text("tab indentation", "lora:\n\trank: 4\n", "bad.yaml:2", "spaces"),
    text("second document", "seed: 1\n---\nseed: 2\n", "bad.yaml:3", "second YAML document"),
    text("anchors that multiply", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)), "bad.yaml"),
    text("anchor of itself", "datasets: &a [*a]\n", "bad.yaml:1"),
    text("unknown anchor", "seed: *nowhere\n", "bad.yaml:1"),
    text("nested too deeply", "datasets: " + "[" * 400 + "]" * 400 + "\n", "bad.yaml", "nested"),
    text("nested for an overflow of the stack", "datasets: " + "[" * 200_000 + "\n", "bad.yaml"),
    text("flow maps for an overflow of the stack", "{a: " * 200_000, "bad.yaml"),
    text("block sequences for an overflow of the stack", "- " * 200_000, "bad.yaml"),
    text("NUL byte", b"seed: 1\0\n", "bad.yaml:1", "0x00"),
    text("invalid UTF-8", b"seed: 1\noutput_dir: \xff\n", "bad.yaml:2", "0xff"),
    text("UTF-16", "seed: 1\n".encode("utf-16"), "bad.yaml:1", "UTF-8"),
    text("behind a byte order mark", b"\xef\xbb\xbfsede: 1\n", "bad.yaml:1: unknown key 'sede'", "seed"),
    text("a list", "- seed\n", "bad.yaml: the file is a list"),
    text("one word", "seed\n", "bad.yaml: the file is", "key: value"),
    text("empty", "", "model_name_or_path is not set", "datasets is not set"),
    text("twenty megabytes of comment", "# x\n" * 5_000_000 + "sede: 1\n", "bad.yaml:5000001", "seed"),
    text("a long line", "output_dir: " + "x" * 10_000_000 + "\nsede: 1\n", "bad.yaml:2"),
    text("another kind of file", bytes(range(256)) * 40, "bad.yaml:1"),
    made("a folder", os.mkdir, "made.yaml", "folder"),
    made("a pipe", os.mkfifo, "made.yaml", "not a file"),
    made("a broken link", lambda path: path.symlink_to("nowhere"), "made.yaml"),
    # Contradictions.
    keys("rows and tokens in a batch", "tokens_per_batch and per_device_train_batch_size", tokens_per_batch=100),
    keys("held out and given", "eval_split and eval_datasets", eval_split=0.1, eval_datasets=["x.jsonl"]),
    keys("early stopping without evaluation", "early_stopping_patience", "eval_datasets", early_stopping_patience=2),
    keys("best without evaluation", "load_best_model_at_end", load_best_model_at_end=True),
    keys("two kinds of warm-up", "warmup_steps and warmup_ratio", warmup_steps=5, warmup_ratio=0.1, max_steps=10),
    keys("longer warm-up than run", "warmup_steps", "max_steps", warmup_steps=5),
    keys("no steps", "max_steps is 0", max_steps=0),
    keys("loftq without quantization", "loftq", "quantization", init_lora_weights="loftq"),
    keys("full over quantized weights", "full", "quantization", method="full", quantization="nf4"),
    keys("backward updates of several batches", "optimizer_in_backward", "gradient_accumulation_steps",
         optimizer_in_backward=True, gradient_accumulation_steps=2),
    keys("backward updates that skip", "optimizer_in_backward", "on_nonfinite", optimizer_in_backward=True,
         max_grad_norm=0, on_nonfinite="skip"),
    keys("all contradictions at once", "max_steps is 0", "eval_split", "tokens_per_batch", max_steps=0,
         eval_split=0.1, eval_datasets=["x.jsonl"], tokens_per_batch=100),
    # What shows beside model and data.
    keys("target that is not there", "q_porj", "q_proj", target_modules=["q_porj"]),
    keys("hostile regular expression", "target_modules", target_modules="(x+x+)+y(a|aa)+" + "(.*)*" * 20 + "z"),
    keys("block that is not there", "block 99", layers_to_transform=[99]),
    keys("module to save that is not there", "modules_to_save", "nowhere", modules_to_save=["nowhere"]),
    keys("rank of nothing", "rank_pattern", "nothing", rank_pattern={"nothing": 4}),
    keys("rank above the weight's", "pissa", init_lora_weights="pissa", lora_rank=4000),
    keys("dataset without a path", "path", datasets=[{"format": "alpaca"}]),
    keys("dataset with an unknown key", "wieght", "weight", datasets=[{"path": "x.jsonl", "wieght": 2}]),
    keys("dataset of weight 0", "weight", datasets=[{"path": "x.jsonl", "weight": 0}]),
    keys("unknown format of rows", "sharegtp", "conversations", datasets=[{"path": "x.jsonl", "format": "sharegtp"}]),
    keys("fields that are a list", "fields", datasets=[{"path": "x.jsonl", "fields": ["a"]}]),
    keys("datasets that are a number", "datasets", datasets=[{"path": ["a"]}]),
    keys("no data at all", "datasets is not set", datasets=None),
    keys("no model at all", "model_name_or_path is not set", model_name_or_path=None),
    keys("device of another world", "device", "cuda", device="tpu"),
    # The command line.
    words("no verb of ours", "--frobnicate", says=["frobnicate"]),
    words("a word without a value", "lora_rank", says=["KEY=VALUE"]),
    words("a value without a key", "=5", says=["=5"]),
    words("an unknown key", "lora_rnak=5", says=["command line", "lora_rank"]),
    words("a broken value", "datasets=[a", says=["datasets"]),
    words("no configuration at all", says=["model_name_or_path", "datasets"]),
    words("a configuration that is not there", "--config", "nowhere/lora.yaml", says=["nowhere/lora.yaml", "no such"]),
]

outcomes, test_bad_input = table_of(CASES)
