"""The commands of the README and of pages in docs/, as printed, on the embedded model; training is cut to two steps,
answers to eight tokens."""

import json
import os
import re
import shlex
import subprocess

import pytest
import yaml
from program import BIN, SOURCE_DIR

README = SOURCE_DIR / "README.md"
PAGES = ["README.md", "docs/eval.md", "docs/generate.md", "docs/grpo.md", "docs/preferences.md", "docs/watching.md"]
TRAIN = ["finetune", "train", "--config", "configs/lora.yaml"]
# What the pages take for granted beside configs/ and data/.
FILES = {"answers.jsonl": {"prediction": "kubectl get pods", "reference": "kubectl get pods -A"},
         "questions.jsonl": {"instruction": "What is an Ingress?"},
         "pairs.jsonl": {"prompt": "List the pods.", "chosen": "kubectl get pods", "rejected": "Look at the dashboard."}}
SHORT = {"train": ["max_steps=2", "eval_steps=2"], "eval": ["--max-new-tokens", "8"], "merge": [], "generate": []}


def commands(page):
    text = (SOURCE_DIR / page).read_text().replace("\\\n", "")
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("finetune ")]


def scripts():
    return sorted(set(re.findall(r"\b(?:scripts|configs|docs|data)/[\w./-]*\w", README.read_text())))


def test_readme_names_what_exists():
    missing = [name for name in scripts() if not (SOURCE_DIR / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands(tmp_path, page):
    if not (SOURCE_DIR / "data/tiny-base/model.safetensors").exists():
        pytest.skip("no embedded model in this tree")
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(SOURCE_DIR / name)
    for name, row in FILES.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    printed = commands(page)
    assert printed
    for command in printed if TRAIN in printed else [TRAIN, *printed]:
        verb = command[1]
        short = [] if "--answers" in command else SHORT.get(verb, [])
        done = subprocess.run([BIN, *command[1:], *short], cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL,
                              text=True, timeout=900, env={**os.environ})
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_kubernetes_job(tmp_path):
    block = re.search(r"^```yaml\n(.*?)^```", (SOURCE_DIR / "docs/kubernetes.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    job = yaml.safe_load(block)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert job["kind"] == "Job" and pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    arguments = [word.replace("/runs", str(tmp_path)) for word in container["args"]]
    for _ in range(2):  # the first Pod and a later one
        done = subprocess.run([BIN, *arguments, "max_steps=2", "eval_steps=2", "eval_samples=0"], cwd=SOURCE_DIR, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    probe = [word.replace("/runs", str(tmp_path)) for word in container["livenessProbe"]["exec"]["command"]]
    assert subprocess.run(probe).returncode == 0
    assert "finetune_step{" in (tmp_path / "finetune.prom").read_text()
