"""`finetune completion` and `finetune man`: the scripts are driven in real shells."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import program
import pytest


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(program.run("completion", shell).stdout)
    return folder


@pytest.fixture
def workplace(tmp_path):
    for name in ("mine.yaml", "other rows.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "models").mkdir()
    return tmp_path


# what is typed, what is offered among others, what is not
CASES = [
    ("finetune tr", ["train"], ["eval"]),
    ("finetune ", ["train", "generate", "completion", "--version"], ["lora_rank="]),
    ("finetune train --co", ["--config"], ["--resume"]),
    ("finetune train --config ", ["mine.yaml", "other rows.jsonl"], ["--resume"]),
    ("finetune train lora_r", ["lora_rank="], ["lora_alpha="]),
    ("finetune train --config mine.yaml method=", ["lora", "full"], ["nf4"]),
    ("finetune plan quantization=n", ["nf4", "none"], ["int8"]),
    ("finetune train stage=", ["sft", "dpo"], ["rm"]),
    ("finetune inspect ", ["data", "tokens"], ["train"]),
    ("finetune inspect data --mo", ["--model"], ["--json"]),
    ("finetune merge --combination ", ["cat", "linear"], ["--model"]),
    ("finetune generate --model ", ["models"], ["mine.yaml"]),
    ("finetune completion ", ["bash", "zsh", "fish"], ["train"]),
]


def bash_offers(script, folder, line):
    """The words as bash splits them at blanks and `=`, then the function that Tab calls."""
    words = [word for word in re.split(r"(=)| ", line) if word]
    if line.endswith(" "):
        words.append("")
    code = f'source {script}/bash; COMP_WORDS=("${{@:1}}"); COMP_CWORD=$(($# - 1)); ' \
           '$(complete -p finetune | sed "s/.*-F \\([^ ]*\\).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code, "bash", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("line, offered, not_offered", CASES)
def test_bash(script, workplace, line, offered, not_offered):
    offers = bash_offers(script, workplace, line)
    assert set(offered) <= set(offers) and not set(not_offered) & set(offers)


def typed(command, setup, keys, folder, env=None):
    """What a shell on a terminal shows after `keys`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm", **(env or {})})
    shown = b""

    def read(seconds):
        nonlocal shown
        end = time.time() + seconds
        while time.time() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:
                    return
    read(1)
    os.write(terminal, setup.encode() + b"\n")
    read(2)
    begin = len(shown)
    os.write(terminal, keys.encode())
    read(2)
    os.close(terminal)
    os.waitpid(pid, 0)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown[begin:].decode(errors="replace"))


def test_bash_on_a_terminal(script, workplace):
    setup = f"source {script}/bash"
    assert "finetune train " in typed(["bash", "--norc", "-i"], setup, "finetune tra\t", workplace)
    shown = typed(["bash", "--norc", "-i"], setup, "finetune train quantiz\tin\t", workplace)
    assert "finetune train quantization=int8" in shown


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh(script, workplace):
    setup = f"autoload -Uz compinit; compinit -u -D; source {script}/zsh"
    for keys, shown in (("finetune tra\t", "finetune train "), ("finetune train quantiz\tin\t", "quantization=int8"),
                        ("finetune train --conf\t", "--config"), ("finetune inspect tok\t", "inspect tokens"),
                        ("finetune merge --combination lin\t", "--combination linear"),
                        ("finetune train datasets=min\t", "datasets=mine.yaml")):
        assert shown in typed(["zsh", "-f", "-i"], setup, keys, workplace), keys


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
@pytest.mark.parametrize("line, offered, not_offered", CASES + [("finetune train datasets=mi", ["datasets=mine.yaml"], [])])
def test_fish(script, workplace, line, offered, not_offered):
    code = f"source {script}/fish; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", code], cwd=workplace, capture_output=True, text=True,
                          env={**os.environ, "HOME": str(workplace)})
    offers = [offer.split("\t")[0].rstrip("/") for offer in done.stdout.splitlines()]
    before = line.split(" ")[-1].split("=")[0] + "=" if "=" in line.split(" ")[-1] else ""
    wanted = {before + word if before and "=" not in word else word for word in offered} - {"--version"}
    assert wanted <= set(offers), (wanted, offers)
    assert not ({before + word for word in not_offered} & set(offers))


def test_every_verb_and_key_is_in_the_manual_page(tmp_path):
    page = tmp_path / "finetune.1"
    page.write_text(program.run("man").stdout)
    keys = re.findall(r"^\| `(\w+)` \|", (program.SOURCE_DIR / "docs/config.md").read_text(), re.MULTILINE)
    verbs = re.findall(r"^  ([a-z][a-z-]*) +[A-Z]", program.run("--help").stdout, re.MULTILINE)
    assert len(verbs) >= 10 and len(keys) > 70
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
        # The page has no date, so that the same program always writes the same page.
        assert [line for line in lint.stdout.splitlines() if "missing date" not in line] == []
        text = subprocess.run(["mandoc", "-T", "utf8", page], capture_output=True, text=True).stdout
        text = re.sub(".\b", "", text)
    elif shutil.which("groff"):
        done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-P-cbou", page], capture_output=True, text=True)
        assert not done.stderr
        text = done.stdout
    else:
        text = page.read_text().replace("\\-", "-")
    for word in [*keys[:70], *verbs, "--config", "--max-new-tokens", "EXIT STATUS", "finetune inspect data"]:
        assert word in text, word


def test_install_puts_them_where_shells_look(tmp_path):
    build = program.pathlib.Path(program.BIN).parent
    if not (build / "cmake_install.cmake").exists() or not (build / "libfinetune_lib.a").exists():
        pytest.skip("not a build folder")
    done = subprocess.run(["cmake", "--install", build, "--prefix", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, beginning in (("bash-completion/completions/finetune", "# Completion"), ("man/man1/finetune.1", ".TH FINETUNE 1"),
                            ("zsh/site-functions/_finetune", "#compdef finetune"),
                            ("fish/vendor_completions.d/finetune.fish", "# Completion")):
        assert (tmp_path / "share" / name).read_text().startswith(beginning)
