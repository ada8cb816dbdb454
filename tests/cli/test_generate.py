"""finetune generate from outside: sampling, stop strings, files, and the conversation at a terminal."""

import json
import os
import pty
import select
import subprocess
import time

import program
import pytest
from program import run, write_rows

PLAIN = ["--template", "none", "dtype=float32"]


def answers(model, rows, tmp_path, *more):
    file = write_rows(tmp_path / "prompts.jsonl", rows)
    done = run("generate", "--model", model, "--input", file, "--json", "--max-new-tokens", 12, *PLAIN, *more)
    return [json.loads(line) for line in done.stdout.splitlines()]


PROMPTS = [{"prompt": text} for text in ("pod", "node pod node", "a", "service " * 9, "volume claim")] * 14


def test_rows_do_not_depend_on_each_other(tmp_path, model):
    """Seventy rows, more than are decoded together, of different lengths: each as it is alone."""
    together = answers(model, PROMPTS, tmp_path)
    alone = [answers(model, [row], tmp_path)[0] for row in PROMPTS[:5]]
    assert together == alone * 14


def test_draws_are_fixed_by_the_seed(tmp_path, model):
    sampling = ["--temperature", 1.5, "--top-k", 50, "--top-p", 0.95, "--min-p", 0.001, "--repetition-penalty", 1.2]
    first = answers(model, PROMPTS, tmp_path, *sampling, "--seed", 3)
    assert first == answers(model, PROMPTS, tmp_path, *sampling, "--seed", 3)
    assert first == answers(model, PROMPTS, tmp_path, *sampling, "seed=3")
    assert first != answers(model, PROMPTS, tmp_path, *sampling, "--seed", 4)
    assert len({row["completion"] for row in first if row["prompt"].strip() == "pod"}) > 5  # rows draw apart
    assert first[:5] == answers(model, PROMPTS[:5], tmp_path, *sampling, "--seed", 3)


def test_a_low_temperature_is_greedy(tmp_path, model):
    assert answers(model, PROMPTS[:5], tmp_path, "--temperature", 1e-6) == answers(model, PROMPTS[:5], tmp_path)
    assert answers(model, PROMPTS[:5], tmp_path, "--temperature", 2, "--top-k", 1) == answers(model, PROMPTS[:5], tmp_path)


def test_stop_strings(tmp_path, model):
    whole = answers(model, [{"prompt": "pod"}], tmp_path)[0]
    stop = whole["completion"][6:9]
    cut = answers(model, [{"prompt": "pod"}], tmp_path, "--stop", stop, "--stop", "never there")[0]
    assert cut["completion"] == whole["completion"][:whole["completion"].index(stop)]
    assert cut["finish_reason"] == "stop" and cut["tokens"] < whole["tokens"]


@pytest.mark.parametrize("arguments", [["--temperature", -1], ["--top-p", 1.5], ["--min-p", -0.1], ["--top-k", -1],
                                       ["--repetition-penalty", 0], ["--stop", ""]])
def test_values_out_of_range(model, arguments):
    run("generate", "--model", model, "--prompt", "x", *PLAIN, *arguments, expect=2)


def test_one_way_to_ask(model, tmp_path):
    message = run("generate", "--model", model, "--prompt", "x", "--chat", expect=2).stderr
    assert "one of --prompt TEXT, --input FILE and --chat" in message
    run("generate", "--model", model, expect=2)


def test_options_without_effect_are_told(model):
    done = run("generate", "--model", model, "--prompt", "x", *PLAIN, "--top-p", 0.5, "--max-new-tokens", 2)
    assert "no effect" in done.stderr


def chat(model, lines, *more):
    return run("generate", "--model", model, "--chat", "--max-new-tokens", 8, "--template", "chatml", "dtype=float32", *more,
               stdin="".join(line + "\n" for line in lines))


def test_chat_from_a_pipe(tmp_path, model):
    """Two turns: the answers of the same conversation as messages."""
    def ask(*messages):
        file = write_rows(tmp_path / "messages.jsonl", [{"messages": list(messages)}])
        done = run("generate", "--model", model, "--input", file, "--max-new-tokens", 8, "--template", "chatml", "--json", "dtype=float32")
        return json.loads(done.stdout)["completion"]
    question = {"role": "user", "content": "pod"}
    first = ask(question)
    second = ask(question, {"role": "assistant", "content": first}, {"role": "user", "content": "node"})
    assert chat(model, ["pod", "node"], "--temperature", 0).stdout == f"{first}\n{second}\n"


def test_chat_commands(model, adapter):
    lines = ["pod", "/adapter base", "/retry", "/adapter out", "/retry", "/reset", "pod", "/system be brief", "pod", "/system", "pod",
             "/adapter nothing", "/nothing", "/exit", "never asked"]
    done = chat(model, lines, "--adapter", adapter, "--temperature", 0)
    for words in ("answering with out", "answering with the base model", "system: be brief", "there is no adapter 'nothing'",
                  "takes one of: base, out", "there is no command /nothing", "/retry"):
        assert words in done.stderr, done.stderr
    one = [chat(model, ["pod"], *more, "--temperature", 0).stdout for more in
           (["--adapter", adapter], [], ["--adapter", adapter], ["--adapter", adapter],
            ["--adapter", adapter, "system_prompt=be brief"], ["--adapter", adapter])]
    assert done.stdout == "".join(one) and one[0] != one[1] and one[4] != one[0]


def test_chat_is_fixed_by_the_seed(model):
    lines = ["pod", "node", "/reset", "pod"]
    first = chat(model, lines, "--seed", 5).stdout
    assert first == chat(model, lines, "--seed", 5).stdout != chat(model, lines, "--seed", 6).stdout


def test_chat_goes_on_after_a_question_that_is_too_long(model):
    done = chat(model, ["pod " * 3000, "pod"], "--temperature", 0)
    assert "error:" in done.stderr and "/reset" in done.stderr
    assert done.stdout == chat(model, ["pod"], "--temperature", 0).stdout


class Screen:
    """What a terminal shows, read up to the words that a test waits for."""

    def __init__(self, terminal):
        self.terminal, self.unread = terminal, ""

    def wait_for(self, words, seconds=60):
        end = time.time() + seconds
        while words not in self.unread:
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.time()))
            assert ready, f"waited for {words!r}, found {self.unread!r}"
            self.unread += os.read(self.terminal, 4096).decode(errors="replace")
        self.unread = self.unread.partition(words)[2]


def chat_at_a_terminal(model):
    """The process, the terminal's other side, and what it shows."""
    terminal, other = pty.openpty()
    process = subprocess.Popen([program.BIN, "generate", "--model", str(model), "--chat", "--max-new-tokens", "3", "--template",
                                "chatml", "dtype=float32", "--temperature", "0"], stdin=other, stdout=other, stderr=other,
                               env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}, start_new_session=True)
    os.close(other)
    return process, terminal, Screen(terminal)


def test_chat_at_a_terminal(model):
    """The line editor: a prompt, UTF-8 with a correction, the line before by the arrow key, Ctrl-D."""
    process, terminal, screen = chat_at_a_terminal(model)
    screen.wait_for("> ")
    os.write(terminal, "/system 容器X\x7f\n".encode())
    screen.wait_for("system: 容器\r\n")
    screen.wait_for("> ")
    os.write(terminal, b"\x1b[A\n")  # once more
    screen.wait_for("system: 容器\r\n")
    screen.wait_for("> ")
    os.write(terminal, b"\x04")
    assert process.wait(timeout=60) == 0
    os.close(terminal)


def test_ctrl_d_before_the_prompt_leaves_too(model):
    process, terminal, _ = chat_at_a_terminal(model)
    os.write(terminal, b"\x04")
    assert process.wait(timeout=60) == 0
    os.close(terminal)
