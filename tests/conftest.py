"""Fixtures of the tests that drive the program."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import program  # noqa: E402
import toy  # noqa: E402


def pytest_sessionstart(session):
    if not os.access(program.BIN, os.X_OK):
        pytest.exit(f"no program at {program.BIN}: run scripts/build, or set FINETUNE_BIN", returncode=2)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny random Llama with a sentencepiece tokenizer. Do not change it: copy it."""
    return toy.make_model(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory):
    """Twelve prompt/completion rows."""
    return program.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", toy.rows(12))


@pytest.fixture
def keys(model, rows_file):
    """The keys of a short training run, to be changed by the test."""
    return {"model_name_or_path": model, "datasets": [rows_file], "template": "none", "lora_rank": 4,
            "per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 1e-2}


@pytest.fixture(scope="session")
def adapter(tmp_path_factory, model, rows_file):
    """The output folder of a short training run: an adapter that differs from the base."""
    return program.train(tmp_path_factory.mktemp("adapter"), model_name_or_path=model, datasets=[rows_file],
                         template="none", lora_rank=4, max_steps=5, learning_rate=5e-2)
