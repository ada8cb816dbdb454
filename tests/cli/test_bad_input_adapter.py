"""Adapters that are wrong (exit code 4) and places that cannot be written (2 and 5)."""

import fcntl
import os

import numpy
import toy
from bad_input import Case, changed_fields, changed_tensors, table_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def adapter(name, damage, *says, code=4, verb="eval"):
    """`damage(folder)` changes a copy of a sound adapter, which `eval` or `merge` then reads."""
    def arrange(place):
        folder = place.copy_of(place.adapter)
        folder = folder.rename(place.folder / "adapter")  # "out" is where results go
        damage(folder)
        if verb == "merge":
            return ["merge", "--model", place.model, "--adapter", folder, "--output", place.out / "merged"]
        return place.eval(adapter=folder)
    return Case(f"{name} ({verb})" if verb != "eval" else name, code, says, arrange)


def tensors(change):
    return changed_tensors(WEIGHTS, change)


def config(**values):
    return changed_fields(CONFIG, values)


def file(name, content):
    return lambda folder: (folder / name).write_text(content)


def other_base(place):
    return place.eval(model=toy.make_model(place.folder / "other", hidden_size=64), adapter=place.adapter)


def cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])


def output(name, code, prepare, *says, **keys):
    """`prepare(place)` does something to the place where the run shall write."""
    def arrange(place):
        more = prepare(place) or {}
        return place.train(**{**keys, **more})
    return Case(name, code, says, arrange)


def make_out(name, content=""):
    def prepare(place):
        place.out.mkdir()
        (place.out / name).write_text(content)
    return prepare


LOCKS = []  # held for as long as the tests run


def locked(place):
    place.out.mkdir()
    LOCKS.append(open(place.out / ".lock", "w"))
    fcntl.flock(LOCKS[-1], fcntl.LOCK_EX)


def checkpoint(place):
    (place.out / "checkpoint-3").mkdir(parents=True)


def file_in_the_way(place):
    return {"output_dir": place.file("file", "mine") / "out"}


def pipe_in_the_way(place):
    os.mkfifo(place.folder / "pipe")
    return {"output_dir": place.folder / "pipe"}


CASES = [
    Case("no folder", 4, ("nowhere",), lambda place: place.eval(adapter="nowhere")),
    Case("another base", 4, ("lora_A", "does not fit"), other_base),
    adapter("no configuration", lambda folder: (folder / CONFIG).unlink(), CONFIG),
    adapter("no weights", lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    adapter("configuration cut short", file(CONFIG, '{"peft_type": '), CONFIG),
    adapter("configuration that is a list", file(CONFIG, "[]"), CONFIG),
    adapter("configuration nested for an overflow of the stack", file(CONFIG, '{"a":' * 200_000), CONFIG),
    adapter("unknown type", config(peft_type="QUUX"), "QUUX", "LORA"),
    adapter("no type", config(peft_type=None), "peft_type|bottleneck|adapter"),
    adapter("rank of 0", config(r=0), "'r'"),
    adapter("rank that is a text", config(r="four"), "'r'"),
    adapter("rank of another adapter", config(r=7), "rank|lora_A"),
    adapter("alpha that is a text", config(lora_alpha="much"), "lora_alpha"),
    adapter("an initialisation that changes the base", config(init_lora_weights="corda"), "init_lora_weights"),
    adapter("a variant we do not compute", config(use_qalora=True), "use_qalora"),
    adapter("weights cut short", cut, WEIGHTS, "truncated"),
    adapter("weights as an LFS pointer", file(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "LFS"),
    adapter("missing tensor", tensors(lambda t: t.pop(FIRST)), "q_proj"),
    adapter("extra tensor", tensors(lambda t: t.update({FIRST.replace("layers.0", "layers.9"): t[FIRST].copy()})),
            "layers.9"),
    adapter("wrong shape", tensors(lambda t: t.update({FIRST: numpy.zeros((16, 31), numpy.float32)})), "q_proj"),
    adapter("whole numbers", tensors(lambda t: t.update({FIRST: numpy.zeros((16, 32), numpy.int32)})), "q_proj"),
    adapter("missing tensor", tensors(lambda t: t.pop(FIRST)), "q_proj", verb="merge"),
    adapter("weights cut short", cut, WEIGHTS, verb="merge"),
    adapter("unknown type", config(peft_type="QUUX"), "QUUX", verb="merge"),
    # Output.
    output("a run that is there", 2, checkpoint, "holds a run already", "--resume"),
    output("a result that is there", 2, make_out(WEIGHTS, "mine"), "holds a run already", "overwrite_output_dir"),
    output("another process at work", 5, locked, "another process"),
    output("another process at work, overwriting", 5, locked, "another process", overwrite_output_dir=True),
    output("a file in the way", 5, file_in_the_way, "file"),
    output("a pipe in the way", 5, pipe_in_the_way, "pipe"),
    output("a folder the system keeps", 5, lambda place: {"output_dir": "/proc/finetune"}, "/proc/finetune"),
    output("a name that is too long", 5, lambda place: {"output_dir": place.folder / ("x" * 300)}, "too long"),
    Case("a report in no folder", 5, ("nowhere",),
         lambda place: [*place.eval(), "--json", place.folder / "nowhere" / "report.json"]),
    Case("merge into the base", 2, ("--output|output",),
         lambda place: ["merge", "--model", (m := place.copy_of(place.model)), "--adapter", place.adapter, "--output", m]),
]

outcomes, test_bad_input = table_of(CASES)
