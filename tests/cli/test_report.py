"""report.html and report.json of a run: what they hold, and how the page behaves in a browser."""

import json
import os
import re
import shutil

import program
import pytest
import toy

BASE = program.SOURCE_DIR / "data/tiny-base"
BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rows = [{"instruction": f"What is pod {i}? </script><b>&", "output": f"A pod is number {i}."} for i in range(20)]
    data = program.write_rows(folder / "rows.jsonl", rows)
    for name, rank in (("a", 4), ("b", 8)):
        program.train(folder / name, model=BASE, datasets=[{"path": str(data)}], eval_split=0.2, template="alpaca", max_steps=6,
                      eval_steps=2, lora_rank=rank, learning_rate=3e-3, per_device_train_batch_size=4)
    return folder / "a/out", folder / "b/out"


def test_report_json(runs):
    report = json.loads((runs[0] / "report.json").read_text())
    assert [line["step"] for line in report["steps"]] == list(range(1, 7))
    assert [line["step"] for line in report["evaluations"]] == [0, 2, 4, 6]
    assert report["result"]["steps"] == 6
    train, held_out = report["data"]
    assert (train["rows"], held_out["rows"]) == (16, 4)
    assert sum(bucket["rows"] for bucket in train["histogram"]) == 16
    parts = train["samples"][0]["parts"]
    assert [part["supervised"] for part in parts] == [False, True] and "A pod is number" in parts[1]["text"]
    settings = {setting["key"]: setting for setting in report["config"]}
    assert settings["lora_rank"]["value"] == "4" and settings["lora_rank"]["origin"].endswith("config.yaml:10")
    assert settings["seed"]["origin"] == "default"
    assert len(report["answers"]) == 2 and report["answers"][0]["before_step"] == 0 and report["answers"][0]["after_step"] == 6
    assert set(report["hashes"]) == {f"{runs[0]}/adapter_model.safetensors", f"{BASE}/model.safetensors"}
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in report["hashes"].values())
    assert "finetune train --config" in report["repeat"] and re.fullmatch("[0-9a-f]{32}", train["content_hash"])


def test_adapter_norms_are_numpys(runs):
    import numpy
    from safetensors.numpy import load_file
    tensors = load_file(runs[0] / "adapter_model.safetensors")
    modules = {entry["module"]: entry for entry in json.loads((runs[0] / "report.json").read_text())["adapter"]}
    assert len(modules) * 2 == len(tensors)
    for name, module in modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"].astype(float) for part in "AB")
        values = numpy.linalg.svd(b @ a, compute_uv=False)[:4] * 32 / 4
        share = values / values.sum()
        assert module["norm"] == pytest.approx(numpy.sqrt((values ** 2).sum()), rel=1e-5)
        assert module["effective_rank"] == pytest.approx(numpy.exp(-(share * numpy.log(share)).sum()), rel=1e-4)


def test_rebuilt_and_compared(runs, tmp_path):
    before = (runs[0] / "report.html").read_bytes()
    (runs[0] / "report.html").unlink()
    program.run("report", runs[0])
    assert (runs[0] / "report.html").read_bytes() == before
    program.run("report", *runs, "--output", tmp_path / "both.html")
    assert str(runs[1]) in (tmp_path / "both.html").read_text()
    assert "holds no run" in program.run("report", tmp_path, expect=2).stderr


def open_page(playwright, file, **options):
    browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    page = browser.new_context(**options).new_page()
    page.problems, page.requests = [], []
    page.on("console", lambda message: page.problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(file.as_uri())
    return page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("scheme,width", [("light", 1200), ("dark", 1200), ("light", 390)])
def test_page_in_a_browser(runs, tmp_path, scheme, width):
    api = pytest.importorskip("playwright.sync_api")
    program.run("report", *runs, "--output", tmp_path / "both.html")
    with api.sync_playwright() as playwright:
        for file in (runs[0] / "report.html", tmp_path / "both.html"):
            page = open_page(playwright, file, color_scheme=scheme, viewport={"width": width, "height": 900})
            assert page.problems == [] and [u for u in page.requests if not u.startswith("data:")] == [file.as_uri()]
            assert page.locator("svg[role=img]").count() == 5
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("ins").count() + page.locator("del").count() > 0
            assert page.locator("b").count() == 0  # data are text, never HTML
            svg = page.locator("svg").first
            svg.focus()
            page.keyboard.press("Home")
            assert page.locator("output").first.inner_text().startswith("step 0:")
            box = svg.bounding_box()
            page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 40)
            assert page.locator("output").first.inner_text().startswith("step 6:")
            if folder := os.environ.get("FINETUNE_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/{file.stem}-{scheme}-{width}.png", full_page=True)
