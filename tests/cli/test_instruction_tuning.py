"""NEFTune, label smoothing and the loss of each data file, as a user sees them."""

import toy
from program import metrics, train, write_rows
import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy.make_model(tmp_path_factory.mktemp("model"))


def keys(model, *files, **changes):
    return {"model_name_or_path": model, "datasets": list(files), "template": "none", "shuffle": False, "max_steps": 2,
            "per_device_train_batch_size": 4, "lr_scheduler_type": "constant", **changes}


def losses(out):
    return [line["loss"] for line in metrics(out)]


def test_neftune_changes_the_loss_and_repeats(tmp_path, model):
    data = write_rows(tmp_path / "rows.jsonl", toy.rows(8))
    plain = losses(train(tmp_path / "plain", **keys(model, data)))
    noisy = train(tmp_path / "noisy", neftune_noise_alpha=5, **keys(model, data))
    again = train(tmp_path / "again", neftune_noise_alpha=5, **keys(model, data))
    assert losses(noisy)[0] != pytest.approx(plain[0], rel=1e-4)
    assert losses(noisy)[0] == pytest.approx(plain[0], rel=0.2)
    file = "adapter_model.safetensors"
    assert (noisy / file).read_bytes() == (again / file).read_bytes()


def test_label_smoothing_is_for_training_only(tmp_path, model):
    data = write_rows(tmp_path / "rows.jsonl", toy.rows(8))
    runs = {share: train(tmp_path / str(share), label_smoothing=share, eval_datasets=[data], **keys(model, data))
            for share in (0, 0.3)}
    assert losses(runs[0.3])[0] != pytest.approx(losses(runs[0])[0], rel=1e-4)  # a random model: either way
    before = [metrics(run, "eval_loss")[0]["eval_loss"] for run in runs.values()]
    assert before[0] == before[1]


def test_loss_of_each_file(tmp_path, model):
    one = write_rows(tmp_path / "one.jsonl", toy.rows(3, seed=1))
    two = write_rows(tmp_path / "two.jsonl", toy.rows(5, seed=2))
    together = metrics(train(tmp_path / "both", **keys(model, one, two, per_device_train_batch_size=8, max_steps=1)))[0]
    apart = {str(file): metrics(train(tmp_path / file.stem, **keys(model, file, per_device_train_batch_size=8, max_steps=1)))[0]
             for file in (one, two)}
    assert list(together["loss_by_source"]) == list(apart)
    for file, line in apart.items():
        assert together["loss_by_source"][file] == pytest.approx(line["loss"], rel=1e-6)
        assert "loss_by_source" not in line
    tokens = sum(line["supervised_tokens"] for line in apart.values())
    mean = sum(line["loss"] * line["supervised_tokens"] for line in apart.values()) / tokens
    assert together["loss"] == pytest.approx(mean, rel=1e-6)
