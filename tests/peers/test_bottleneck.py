"""Bottleneck adapters against the `adapters` library: saved here and opened there, made there and continued here."""

import json

import adapter_library
import family
import peer
import pytest
import toy
from program import metrics, predictions, run, train, train_arguments, write_rows
from test_training import step_keys

ROWS = toy.rows(12, seed=6)

# Name -> family, settings of this program.
OURS = {
    "pfeiffer": ("llama", {}),
    "houlsby": ("llama", {"adapter_placement": "houlsby", "adapter_size": 5, "adapter_activation": "relu"}),
    "parallel": ("llama", {"adapter_placement": "parallel", "adapter_activation": "silu"}),
    "scaling, dropout": ("llama", {"adapter_scaling": 0.3, "adapter_dropout": 0.2, "adapter_activation": "tanh"}),
    "one block": ("llama", {"layers_to_transform": [1], "adapter_placement": "houlsby"}),
    "wider than the model": ("llama", {"adapter_size": 70}),
    "gpt2": ("gpt2", {"adapter_placement": "houlsby"}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {"adapter_placement": "houlsby"}),
    "qwen3": ("qwen3", {}),
    "smollm3": ("smollm3", {"adapter_placement": "parallel"}),
}

PFEIFFER = {"mh_adapter": False, "output_adapter": True, "original_ln_before": True, "reduction_factor": 4,
            "non_linearity": "relu"}
THEIRS = {
    "pfeiffer": PFEIFFER,
    "both places": {**PFEIFFER, "mh_adapter": True, "non_linearity": "gelu_new", "leave_out": [0]},
    "houlsby": {**PFEIFFER, "mh_adapter": True, "original_ln_before": False, "non_linearity": "swish"},
    "parallel": {**PFEIFFER, "original_ln_before": False, "is_parallel": True, "scaling": 4.0, "dropout": 0.1},
}


@pytest.fixture(scope="module")
def library():
    if not adapter_library.PYTHON.exists():
        pytest.skip(f"no {adapter_library.PYTHON}: scripts/test makes it")
    process = adapter_library.Library()
    yield process
    process.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Family -> model folder, made once."""
    folders = {}

    def get(name):
        if name not in folders:
            folders[name] = family.make(tmp_path_factory.mktemp("base"), name)
        return folders[name]
    return get


def nlls(rows):
    return [row["nll"] for row in rows]


def encode(base):
    return peer.encode(base, ROWS)


def keys(base, data, **changes):
    return step_keys(base, data, **{"method": "adapter", "adapter_size": 8, "learning_rate": 1e-2, "max_steps": 4,
                                    **changes})


@pytest.mark.parametrize("name", OURS)
def test_saved_here_opened_by_the_library(tmp_path, library, bases, data, name):
    model_type, settings = OURS[name]
    base = bases(model_type)
    out = train(tmp_path, **keys(base, data, **settings))
    ours = predictions(tmp_path, base, data, adapter=out)
    assert nlls(ours["adapter"]) != pytest.approx(nlls(ours["base"]), rel=1e-3)
    for folder in (out, out / "checkpoint-4"):
        assert nlls(ours["adapter"]) == pytest.approx(library.score(base=base, folder=folder, rows=encode(base)), rel=1e-5)


@pytest.mark.parametrize("name", THEIRS)
def test_made_by_the_library_opened_here(tmp_path, library, bases, data, name):
    base, folder = bases("llama"), tmp_path / "theirs"
    theirs = library.make(base=base, folder=folder, config=THEIRS[name], rows=encode(base))
    ours = predictions(tmp_path, base, data, adapter=folder)
    assert nlls(ours["adapter"]) == pytest.approx(theirs, rel=1e-5)
    assert theirs != pytest.approx(nlls(ours["base"]), rel=1e-3)


@pytest.mark.parametrize("name", THEIRS)
def test_made_by_the_library_continued_here(tmp_path, library, bases, data, name):
    """One step of plain descent from the library's adapter shows its loss and gradients."""
    base, folder, rate = bases("llama"), tmp_path / "theirs", 0.1
    library.make(base=base, folder=folder, config=THEIRS[name], rows=[])
    rows = write_rows(tmp_path / "four.jsonl", ROWS[:4])
    out = train(tmp_path, **step_keys(base, rows, method="adapter", init_adapter=folder, optim="sgd",
                                      learning_rate=rate, max_steps=1))
    theirs = library.descend(base=base, folder=folder, rows=encode(base)[:4], rate=rate)
    line, = metrics(out)
    assert line["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert line["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    assert nlls(predictions(tmp_path, base, rows, adapter=out)["adapter"]) == pytest.approx(theirs["nlls"], rel=1e-4)
    assert json.loads((out / "adapter_config.json").read_text())["config"]["leave_out"] == THEIRS[name].get("leave_out", [])


@pytest.mark.parametrize("name, reason", [
    ("phi", "attention and MLP read the same input"), ("gpt_neox", "attention and MLP read the same input"),
    ("gemma2", "norms stand between"), ("gemma3_text", "norms stand between"), ("olmo2", "norms stand between"),
    ("granite", "are scaled before they join")])
def test_families_without_a_place_are_told(tmp_path, bases, data, name, reason):
    done = run(*train_arguments(tmp_path, **keys(bases(name), data)), expect=2)
    assert reason in done.stderr and f"in {name}" in done.stderr


@pytest.mark.parametrize("name", ["gpt_neox, sequential, no bias", "phi3", "gemma", "mixtral", "qwen3_moe"])
def test_families_that_the_library_does_not_know(tmp_path, bases, data, name):
    """Begins at the base, learns, and the saved adapter gives what training saw."""
    base = bases(name)
    out = train(tmp_path, **keys(base, data, learning_rate=1e-2, max_steps=20, eval_datasets=[data],
                                 load_best_model_at_end=False))
    plain = predictions(tmp_path, base, data, adapter=out)
    tokens = sum(row["supervised_tokens"] for row in plain["base"])
    evaluated = metrics(out, "eval_loss")
    assert evaluated[0]["eval_loss"] == pytest.approx(sum(nlls(plain["base"])) / tokens, rel=1e-5)
    assert evaluated[-1]["eval_loss"] == pytest.approx(sum(nlls(plain["adapter"])) / tokens, rel=1e-5)
    assert evaluated[-1]["eval_loss"] < 0.95 * evaluated[0]["eval_loss"]
