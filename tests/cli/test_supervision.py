"""What is learned with every recorded chat template and every shared tokenizer: answers and what ends them, after one BOS."""

import concurrent.futures
import json
import os
import re
import shutil

import pytest
import toy
from program import SHARED_DIR, run, write_rows
from test_silent_wrongness import BYTES, spans

GOLDEN = SHARED_DIR / "data/golden/templates"
TOKENIZERS = SHARED_DIR / "data/tokenizers"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no recorded templates here")

SYSTEM, QUESTIONS, ANSWERS = "Wording of the system.", ["first query?", "2nd query: the reply one?"], ["the reply one", "reply, two"]
TURNS = [{"role": role, "content": text} for pair in zip(QUESTIONS, ANSWERS) for role, text in zip(("user", "assistant"), pair)]
ROWS = {"one turn": TURNS[:2], "two turns": TURNS, "with a system prompt": [{"role": "system", "content": SYSTEM}, *TURNS]}
SPECIAL = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]+\]|\[\|\w+\|\]")
# Templates that do not take such rows -> why not. That is told, and nothing is learned wrongly.
REFUSED = {"amberchat": "no special token", "llava.": "no special token", "chatglm": "no special token",
           "command-r-plus-tool_use": "not iterable", "Hermes-2-Pro-Llama-3-8B-tool_use": "not iterable",
           "idefics3.": "does not show", "idefics3_training": "does not show", "llava_next": "has no attribute 'text'"}


def byte_level_tokenizer(folder, specials):
    added = [{"id": 256 + i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for i, text in enumerate(specials)]
    bos = specials[0]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "normalizer": None, "decoder": {"type": "ByteLevel"}, "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {bos: {"id": bos, "ids": [256], "tokens": [bos]}},
                           "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTES)}, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": bos, "eos_token": specials[1], "add_bos_token": True, "tokenizer_class": "PreTrainedTokenizerFast"}))


def samples(folder, rows):
    """The rows as they are learned, as [(trained, text)]; or the message of the program that refuses one."""
    data = write_rows(folder / "rows.jsonl", [{"messages": row} for row in rows])
    done = run("inspect", "data", f"model={folder}", f"datasets={data}", "--samples", len(rows), "--json", expect=None)
    if done.returncode != 0:
        assert done.returncode == 3, done.stderr
        return done.stderr
    return [spans(sample["text"]) for sample in json.loads(done.stdout)["datasets"][0]["samples"]]


def wrong(parts, row, bos, specials, marked=False):
    """What is wrong with what is learned of a row, or ""."""
    learned = "".join(text for trained, text in parts if trained)
    whole = "".join(text for _, text in parts)
    if SYSTEM in learned or any(question in learned for question in QUESTIONS):
        return "the prompt is learned"
    answers = [turn["content"] for turn in row if turn["role"] == "assistant"]
    at = 0
    for i, answer in enumerate(answers):
        begin = learned.find(answer, at)
        if begin < 0:
            return f"{answer!r} is not learned"
        at = begin + len(answer)
        end = learned.find(answers[i + 1], at) if i + 1 < len(answers) else len(learned)
        if not any(special in learned[at:end] for special in specials):
            return f"what ends {answer!r} is not learned"
    # Nothing but answers, what ends them, and what a template itself marks or puts around them.
    extra = learned
    for answer in answers:
        extra = extra.replace(answer, "", 1)
    for special in sorted(specials, key=len, reverse=True):
        extra = extra.replace(special, "")
    if re.search(r"\w", extra) and not marked:
        return f"{extra!r} is learned too"
    if bos and (not whole.startswith(bos) or whole.startswith(bos * 2)):
        return "it does not begin with one BOS"
    return ""


def test_every_recorded_template(tmp_path):
    model = toy.make_model(tmp_path / "model")
    (model / "tokenizer.model").unlink()

    def check(file):
        golden = json.loads(file.read_text(encoding="utf-8"))
        texts = "".join(case.get("rendered", "") for case in golden["cases"]) + golden["template"]
        specials = list(dict.fromkeys([golden["bos_token"], golden["eos_token"], *SPECIAL.findall(texts)]))
        folder = shutil.copytree(model, tmp_path / file.stem)
        byte_level_tokenizer(folder, specials)
        (folder / "chat_template.jinja").write_text(golden["template"], encoding="utf-8")
        rows = list(ROWS.values())
        learned = samples(folder, rows)
        if isinstance(learned, str):  # most often of the system prompt
            rows = rows[:2]
            learned = samples(folder, rows)
        if isinstance(learned, str):
            return file.name, learned, []
        marked = golden["generation_tag"]
        return file.name, "", [what for parts, row in zip(learned, rows, strict=True)
                               if (what := wrong(parts, row, golden["bos_token"], specials, marked))]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, sorted(GOLDEN.glob("*.json"))))
    assert len(results) > 80
    assert not [(name, what) for name, _, what in results if what]
    refused = {name: message for name, message, _ in results if message}
    unexpected = {name: message for name, message in refused.items()
                  if not any(part in name and why in message for part, why in REFUSED.items())}
    assert not unexpected and len(refused) == len(REFUSED), (unexpected, list(refused))


@pytest.mark.parametrize("name", ["qwen2.5", "minimind", "phi3-mini"])
def test_real_tokenizers_with_their_own_templates(tmp_path, name):
    folder = toy.make_model(tmp_path / "model")
    (folder / "tokenizer.model").unlink()
    for file in (TOKENIZERS / name).iterdir():
        shutil.copy(file, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    specials = [token["content"] for token in config.get("added_tokens_decoder", {}).values()]
    assert specials
    learned = samples(folder, ROWS.values())
    assert not isinstance(learned, str), learned
    for row, parts in zip(ROWS.values(), learned, strict=True):
        begins = "".join(text for _, text in parts)
        bos = config.get("bos_token")
        bos = bos["content"] if isinstance(bos, dict) else bos
        assert not wrong(parts, row, None, specials), parts
        assert not bos or not begins.startswith(bos * 2), parts
