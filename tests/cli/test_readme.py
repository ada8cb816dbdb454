"""The commands of the README and of every page in docs/, as printed, on the embedded model; training is cut to two steps,
answers to eight tokens."""

import json
import os
import re
import subprocess

import pytest
import yaml
from program import BIN, SOURCE_DIR

README = SOURCE_DIR / "README.md"
# Found, not listed, so that none is forgotten.
PAGES = ["README.md", *sorted(str(page.relative_to(SOURCE_DIR)) for page in (SOURCE_DIR / "docs").rglob("*.md"))]
TRAIN = "finetune train --config configs/lora.yaml"
# What the pages take for granted beside configs/ and data/. Where a page shows a file itself (a block whose first line is
# ```yaml NAME or ```json NAME), that is written instead.
FILES = {"answers.jsonl": {"prediction": "kubectl get pods", "reference": "kubectl get pods -A"},
         "questions.jsonl": {"instruction": "What is an Ingress?"},
         "pairs.jsonl": {"prompt": "List the pods.", "chosen": "kubectl get pods", "rejected": "Look at the dashboard."}}
SHORT = {"train": "max_steps=2 eval_steps=2", "eval": "--max-new-tokens 8"}
BLOCK = re.compile(r"^```(\w+)?(?: +(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page):
    """Every line of a block of commands, in the page's order."""
    lines = []
    for language, _, block in BLOCK.findall((SOURCE_DIR / page).read_text()):
        if language in ("sh", "console"):
            lines += [line.removeprefix("$ ").split("  #")[0].strip() for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if re.search(r"(^|[|&] *)finetune ", line)]


def shortened(command):
    """The command with fewer steps and tokens, put behind its own words and before a pipe or a redirection."""
    verb = re.search(r"finetune (\w+)", command)[1]
    if verb not in SHORT or re.search(r"--answers|--show-config|--dry-run", command):
        return command
    before, own, after = re.fullmatch(r"(.*?)(finetune .*?)( *[|>].*)?", command).groups()
    return f"{before}{own} {SHORT[verb]}{after or ''}"


def scripts():
    return sorted(set(re.findall(r"\b(?:scripts|configs|docs|data)/[\w./-]*\w", README.read_text())))


def test_readme_names_what_exists():
    missing = [name for name in scripts() if not (SOURCE_DIR / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands(tmp_path, page):
    if not (SOURCE_DIR / "data/tiny-base/model.safetensors").exists():
        pytest.skip("no embedded model in this tree")
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(SOURCE_DIR / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/finetune").symlink_to(BIN)
    shown = {name: block for _, name, block in BLOCK.findall((SOURCE_DIR / page).read_text()) if name}
    for name, text in {**{name: json.dumps(row) + "\n" for name, row in FILES.items()}, **shown}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    printed = commands(page)
    trained = TRAIN in printed or not any("runs/lora" in command for command in printed)
    for command in printed if trained else [TRAIN, *printed]:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", shortened(command)], cwd=tmp_path, capture_output=True,
                              stdin=subprocess.DEVNULL, text=True, timeout=900,
                              env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_pages_show_commands_as_commands():
    """A command in a block without a language would not be run."""
    for page in PAGES:
        for language, _, block in BLOCK.findall((SOURCE_DIR / page).read_text()):
            assert language in ("sh", "console") or not re.search(r"^(\$ )?finetune [a-z]", block, re.MULTILINE), (page, block)


def test_pages_link_to_what_exists():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (SOURCE_DIR / page).read_text()):
            assert ((SOURCE_DIR / page).parent / link).exists(), (page, link)


def test_readme_names_every_page():
    text = README.read_text()
    assert [page for page in PAGES[1:] if f"]({page})" not in text] == []


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
