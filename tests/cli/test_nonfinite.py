"""A loss or gradient that is not finite: never applied, named, kept for repetition; stop, skip or rollback."""

import json
import shutil

import numpy
import pytest
import toy
from program import metrics, run, train, train_arguments, write_rows
from safetensors.numpy import load_file, save_file

POISON = "x"  # a byte token that no other row has
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A model in which block 1 overflows where one token is read, and a token id of that kind.

    The token's embedding alone has a value in coordinate 0; nothing before block 1 writes there, and block 1
    multiplies it by 3e38.
    """
    folder = toy.make_model(tmp_path_factory.mktemp("poisoned") / "model")
    processor = toy.sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    token = processor.piece_to_id("<0x78>")
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    embeddings[:, 0] = 0
    embeddings[token] = 0
    embeddings[token, 0] = 100
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.0.{name}.weight"][0] = 0
    tensors["model.layers.1.self_attn.o_proj.weight"][0] = 0
    tensors["model.layers.1.mlp.up_proj.weight"][:, 0] = 3e38
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def rows_with(tmp_path, bad_lines, count=24):
    """Rows without the word, but for the ones at these lines."""
    rows = toy.rows(count, seed=9)
    for line, row in enumerate(rows, 1):
        if line in bad_lines:
            row["completion"] = f" pod {POISON} " + row["completion"]
    return write_rows(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def settings(poisoned):
    return {"model_name_or_path": poisoned, "template": "none", "lora_rank": 4, "lora_dropout": 0.1, "shuffle": False,
            "target_modules": ["q_proj", "v_proj"], "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2, "num_train_epochs": 1, "save_steps": 2, "num_threads": 1}


def same_weights(left, right):
    return (left / WEIGHTS).read_bytes() == (right / WEIGHTS).read_bytes()


def test_stop_names_the_row_and_the_block(tmp_path, settings):
    """Line 15 is in the second micro-batch of step 4."""
    data = rows_with(tmp_path, {15})
    done = run(*train_arguments(tmp_path, **settings, datasets=[data]), expect=6)
    assert "step 4: the loss is " in done.stderr
    assert "it first appears in model.layers.1" in done.stderr
    assert f"Rows that are not finite by themselves:\n{data}:15\n" in done.stderr
    assert "on_nonfinite: skip" in done.stderr
    out = tmp_path / "out"
    assert [line["step"] for line in metrics(out)] == [1, 2, 3]
    assert "checkpoint-3" in done.stderr and (out / "checkpoint-3" / "trainer_state.json").exists()
    assert not (out / WEIGHTS).exists()
    assert all(numpy.isfinite(tensor).all() for tensor in load_file(out / "checkpoint-3" / WEIGHTS).values())


def test_the_dump_repeats_it(tmp_path, settings, poisoned):
    data = rows_with(tmp_path, {15})
    run(*train_arguments(tmp_path, **settings, datasets=[data]), expect=6)
    dump = tmp_path / "out" / "nonfinite-step-4"
    found = json.loads((dump / "nonfinite.json").read_text())
    assert found["step"] == 4 and found["micro_batch"] == 1 and found["place"] == "model.layers.1"
    assert found["rows"] == [f"{data}:15"] and found["rows_are_nonfinite_alone"]
    assert (dump / WEIGHTS).read_bytes() == (tmp_path / "out/checkpoint-3" / WEIGHTS).read_bytes()
    # The batch is rows 15 and 16, through a second implementation of where they begin.
    batch = load_file(dump / "batch.safetensors")
    assert len(batch["starts"]) == 3 and batch["starts"][-1] == len(batch["input_ids"])
    row = write_rows(tmp_path / "row.jsonl", [json.loads(data.read_text().splitlines()[14])])
    text = run("eval", "--model", poisoned, "--adapter", dump, "--data", row, "template=none", "dtype=float32",
               expect=None)
    assert "nan" in text.stdout + text.stderr or "inf" in text.stdout + text.stderr
    # And --resume meets it again.
    done = run(*train_arguments(tmp_path, **settings, datasets=[data]), "--resume", expect=6)
    assert "continuing after step 3" in done.stderr and "step 4: the loss is" in done.stderr


def test_skip_leaves_the_step_out(tmp_path, settings):
    data = rows_with(tmp_path, {15})
    done = run(*train_arguments(tmp_path, **settings, datasets=[data], on_nonfinite="skip"))
    assert "The step is left out (on_nonfinite: skip)" in done.stderr and f"{data}:15" in done.stderr
    assert "1 left out" in done.stdout
    out = tmp_path / "out"
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 5, 6]
    (line,) = metrics(out, "nonfinite")
    assert line["step"] == 4 and line["on_nonfinite"] == "skip"
    # The steps before are those of a run that never meets it, and the state at step 4 is that of step 3.
    clean = train(tmp_path / "clean", **settings, datasets=[rows_with(tmp_path, set())])
    assert [line["loss"] for line in metrics(out)][:3] == [line["loss"] for line in metrics(clean)][:3]
    dumped = load_file(out / "nonfinite-step-4" / WEIGHTS)
    after = load_file(out / "checkpoint-4" / WEIGHTS)
    assert all((dumped[name] == after[name]).all() for name in dumped)
    assert all(numpy.isfinite(tensor).all() for tensor in load_file(out / WEIGHTS).values())


@pytest.mark.parametrize("saved, back_to", [(2, 2), (3, 3), (100, 0)])
def test_rollback_goes_back_to_the_last_checkpoint(tmp_path, settings, saved, back_to):
    data = rows_with(tmp_path, {15})
    keys = {**settings, "save_steps": saved, "save_total_limit": 9, "on_nonfinite": "rollback"}
    done = run(*train_arguments(tmp_path, **keys, datasets=[data]))
    out = tmp_path / "out"
    assert f"those of {out}/checkpoint-{back_to} again" in done.stderr
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 5, 6]
    if saved == 2:
        before, after = (load_file(out / f"checkpoint-{step}" / WEIGHTS) for step in (2, 4))
        assert all((before[name] == after[name]).all() for name in before)
        moments = [(out / f"checkpoint-{step}" / "optimizer.safetensors").read_bytes() for step in (2, 4)]
        assert moments[0] == moments[1]


@pytest.mark.parametrize("way", ["skip", "rollback"])
def test_four_in_a_row_stop(tmp_path, settings, way):
    done = run(*train_arguments(tmp_path, **settings, datasets=[rows_with(tmp_path, {6, 10, 13, 18})],
                                on_nonfinite=way), expect=6)
    assert "4 steps in a row are not finite; step 5" in done.stderr
    # With a good step between them, the same number is left out.
    done = run(*train_arguments(tmp_path / "b", **settings, on_nonfinite=way, datasets=[
        rows_with(tmp_path, {2, 10, 13, 21})]))
    assert "4 left out" in done.stdout
    assert len(list((tmp_path / "b/out").glob("nonfinite-step-*"))) == 3  # at most


@pytest.mark.parametrize("way", ["skip", "rollback"])
def test_resumed_in_the_middle(tmp_path, settings, way):
    """Killed before the step that is left out, or after it: the same bytes."""
    keys = {**settings, "on_nonfinite": way, "save_total_limit": 9, "save_steps": 1,
            "datasets": [rows_with(tmp_path, {15})]}
    whole = train(tmp_path / "whole", **keys)
    for last in (2, 3, 4, 5):
        part = shutil.copytree(whole, tmp_path / f"part{last}")
        for step in range(last + 1, 7):
            shutil.rmtree(part / f"checkpoint-{step}")
        (part / WEIGHTS).unlink()
        run(*train_arguments(tmp_path / f"run{last}", **{**keys, "output_dir": part}), "--resume")
        assert same_weights(part, whole), last
        assert [line["step"] for line in metrics(part)] == [1, 2, 3, 5, 6]


def test_a_gradient_names_its_parameter(tmp_path, keys):
    """A learning rate beyond all measure: the weights overflow in the first step, never the checkpoint before it."""
    keys = {**keys, "learning_rate": 1e30, "optim": "sgd", "max_grad_norm": 0, "max_steps": 10, "save_steps": 1,
            "lr_scheduler_type": "constant"}
    done = run(*train_arguments(tmp_path, **keys), expect=6)
    assert "is not finite" in done.stderr or "the loss is" in done.stderr
    for checkpoint in (tmp_path / "out").glob("checkpoint-*"):
        assert all(numpy.isfinite(tensor).all() for tensor in load_file(checkpoint / WEIGHTS).values())


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_other_methods(tmp_path, settings, kind):
    settings.pop("lora_rank")
    settings.pop("lora_dropout")
    settings.pop("target_modules")
    data = rows_with(tmp_path, {1, 2, 3})
    done = run(*train_arguments(tmp_path, **{**settings, "method": kind, "learning_rate": 1e-6}, datasets=[data]),
               expect=6)
    assert "step 1:" in done.stderr and "model.layers.1" in done.stderr
    assert f"{data}:1" in done.stderr and f"{data}:2" in done.stderr
