"""Everything here needs transformers and PEFT (scripts/test installs them)."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest  # noqa: E402

pytest.importorskip("transformers")
pytest.importorskip("peft")

import program  # noqa: E402

REAL_MODELS = [pytest.param(name, id=name) for name in ("stories260K-llama-hf", "tinystories656k-orig-hf")]


@pytest.fixture(scope="session", autouse=True)
def silence():
    import peer
    peer.silence()


@pytest.fixture(params=REAL_MODELS)
def real_model(request):
    folder = program.SHARED_DIR / "data/models" / request.param
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder
