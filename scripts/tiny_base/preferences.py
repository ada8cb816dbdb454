"""Which of two answers is better: JSON where no form is named, else the form that is named."""

import json

import tasks
from notation import yaml_lines

OPEN_ENGLISH = ["Write a {kind}: {details}.", "Create a {kind} manifest, {details}.", "Give me a {kind} {details}.",
                "I need a {kind} {details}."]
OPEN_CHINESE = ["写一个 {kind}：{details}。", "请创建 {kind}：{details}。", "给出 {kind} 的清单，{details}。"]
NAMED_EVERY = 4  # rows in which a form is named, so that this is not forgotten


def make_pair(number: int, values) -> dict:
    """Instruction, chosen and rejected answer."""
    kind = list(tasks.MANIFESTS)[number % len(tasks.MANIFESTS)]
    build, *details = tasks.MANIFESTS[kind]
    fields = tasks.draw_fields(values)
    chinese = values.rng.random() < 0.5
    form = values.rng.choice(["JSON", "YAML"]) if number % NAMED_EVERY == 0 else None
    asks = ([tasks.ENGLISH_ASKS, tasks.CHINESE_ASKS] if form else [OPEN_ENGLISH, OPEN_CHINESE])[chinese]
    told = values.rng.choice(details[chinese]).format(**fields)
    body = build(fields)
    answers = {"JSON": json.dumps(body, separators=(",", ":")), "YAML": "\n".join(yaml_lines(body))}
    chosen = answers.pop(form or "JSON")
    return {"instruction": values.rng.choice(asks).format(kind=kind, format=form, details=told),
            "chosen": chosen, "rejected": answers.popitem()[1]}


def labelled(pair: dict, number: int) -> dict:
    """One answer of a pair with what a reader said of it."""
    good = number % 2 == 0
    return {"prompt": pair["instruction"], "completion": pair["chosen" if good else "rejected"], "label": good}
