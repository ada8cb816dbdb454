"""Generates the pretraining text of data/tiny-base: `{"text": ...}` rows, the same for the same seed.

Repetition and association lists of random values, records told in prose, YAML, JSON, logs and tables, so that
copying works across formats and the words around a value say which value belongs there, and
explanatory sentences about containers and clusters in English and Chinese.
"""

import argparse
import json
import random
import re

import frames
import tasks
import terms
from notation import yaml_lines
from values import COMMON, Values

FIELD_VALUES = {
    "name": Values.name, "namespace": Values.name, "image": Values.image, "replicas": Values.count,
    "port": Values.port, "target": Values.port, "key": Values.key, "value": Values.word, "host": Values.host,
    "path": Values.path, "cpu": Values.cpu, "memory": Values.memory, "schedule": Values.schedule,
    "node": Values.name, "owner": Values.word, "backend": Values.name, "container": Values.name,
    "min": Values.count, "max": Values.count,
}
NUMERIC = {"replicas", "port", "target", "min", "max"}
SEPARATORS = [" ", " ", ", ", "\n", "; ", " | ", "\n- ", " / ", "，", "、", " -> "]


def words_of(texts: list) -> set:
    """Latin words and runs of Chinese, without the places where values go."""
    return set(re.findall(r"[A-Za-z0-9]+|[\u4e00-\u9fff]+", re.sub(r"{\w+}", " ", " ".join(texts))))


def field_words() -> set:
    """The words of the tuning task and the corpus."""
    texts = frames.VOCABULARY + frames.CHINESE_VOCABULARY + tasks.wordings() + list(tasks.MANIFESTS)
    for keys, english, chinese in frames.FIELDS.values():
        texts = texts + keys + english + chinese
    return words_of(texts)


def term_words() -> set:
    """The words of the explained terms."""
    texts = []
    for answer, questions, paraphrase in terms.TERMS:
        texts += [answer, *questions, paraphrase or ""]
    return words_of(texts)


def domain_words() -> list:
    """Every word that tuning uses, so that none is met there for the first time; words only, no sentences."""
    words = field_words() | term_words()
    latin = {word for word in words if word.isascii()}
    characters = {character for word in words if not word.isascii() for character in word}
    return sorted(latin | characters | set(frames.CHINESE_VOCABULARY))


WORDS = domain_words()


def any_value(values: Values) -> str:
    """A value of any kind, or a word of the domain."""
    rng = values.rng
    if rng.random() < 0.15:
        return rng.choice(WORDS)
    return rng.choice(list(FIELD_VALUES.values()))(values)


def repetition(values: Values) -> str:
    """One list, said two to four times; the second time each item can only be copied."""
    rng = values.rng
    draw = any_value if rng.random() < 0.6 else rng.choice([Values.word, Values.name, Values.image, Values.port])
    items = [draw(values) for _ in range(rng.randint(2, 10))]
    rounds = []
    for _ in range(rng.randint(2, 4)):
        style = rng.random()
        if style < 0.2:
            rounds.append(json.dumps(items, ensure_ascii=False, separators=rng.choice([(",", ":"), (", ", ": ")])))
        elif style < 0.3:
            rounds.append("\n".join("- " + item for item in items))
        else:
            rounds.append(rng.choice(SEPARATORS).join(items))
    return rng.choice(["\n", "\n", " ; ", "\n\n"]).join(rounds)


def word_list(values: Values) -> str:
    """Words of the domain in two orders, under headings, in brackets or plain."""
    rng = values.rng
    words = rng.sample(WORDS, rng.randint(4, 10))
    rounds = []
    for _ in range(2):
        rng.shuffle(words)
        heading = rng.choice(["", "", "# ", "## ", "### "])
        first = heading + rng.choice([any_value(values), rng.choice(WORDS)]) + rng.choice([":", ""]) + "\n" if heading else ""
        left, right = rng.choice([("", ""), ("", ""), ("[", "]"), ("(", ")"), ("", "."), ("", "。"), ("", "?")])
        rounds.append(first + left + rng.choice([" ", " ", ", ", "，", "\n", " / "]).join(words) + right)
    return rng.choice(["\n", "\n\n"]).join(rounds)


def association(values: Values) -> str:
    """Pairs, then the same pairs in another order and another notation: a lookup by key."""
    rng = values.rng
    pairs = [(any_value(values), any_value(values)) for _ in range(rng.randint(2, 6))]
    notations = ["{k}: {v}", "{k} = {v}", "{k} {v}", "\"{k}\":\"{v}\"", "\"{k}\": \"{v}\"", "{k}={v}", "{k}是 {v}",
                 "{k} is {v}", "{k} -> {v}", "--{k} {v}"]
    rounds = []
    for _ in range(rng.randint(2, 3)):
        rng.shuffle(pairs)
        notation = rng.choice(notations)
        rounds.append(rng.choice([", ", "\n", "; ", " ", ","]).join(notation.format(k=k, v=v) for k, v in pairs))
    return "\n".join(rounds)


def mention(values: Values) -> str:
    rng = values.rng
    frame = rng.choice(frames.ENGLISH_MENTIONS if rng.random() < 0.6 else frames.CHINESE_MENTIONS)
    return frame.format(v=any_value(values), w=any_value(values))


def prose(rng: random.Random, record: dict, chinese: bool) -> str:
    links = frames.CHINESE_LINKS if chinese else frames.ENGLISH_LINKS
    parts = [rng.choice(links).format(f=rng.choice(frames.FIELDS[kind][2 if chinese else 1]), v=value)
             for kind, value in record.items()]
    opener = rng.choice(frames.CHINESE_OPENERS if chinese else frames.ENGLISH_OPENERS) if rng.random() < 0.6 else ""
    if rng.random() < 0.3:  # a bare verb phrase with words of the domain before the fields
        opener += " " + " ".join(rng.sample(frames.CHINESE_VOCABULARY if chinese else frames.VOCABULARY, 3))
    joiner = rng.choice(["，", "，", "、", "；"] if chinese else [", ", ", ", " and ", "; ", " "])
    end = "。" if chinese else "."
    return (opener + rng.choice(["，", "：", ""] if chinese else [", ", ": ", " "]) if opener else "") + joiner.join(parts) + end


def keyed(rng: random.Random, record: dict) -> dict:
    """Field kinds replaced by one of their key names; numbers become JSON numbers most of the time."""
    result = {}
    for kind, value in record.items():
        number = kind in NUMERIC and rng.random() < 0.8
        result[rng.choice(frames.FIELDS[kind][0])] = int(value) if number else value
    return result


def nested(rng: random.Random, flat: dict) -> dict:
    """Groups some keys under parents, in lists or in both, so that JSON of every shape is met."""
    items = list(flat.items())
    result = {}
    while items:
        size = rng.randint(1, 3)
        group, items = dict(items[:size]), items[size:]
        style = rng.random()
        if style < 0.4:
            result.update(group)
            continue
        inner = [group] if style < 0.6 else group
        if rng.random() < 0.3:
            inner = {rng.choice(frames.GROUP_KEYS + frames.VOCABULARY[:40]): inner}
        result[rng.choice(frames.GROUP_KEYS + frames.VOCABULARY[:40])] = inner
    return result


def announced(rng: random.Random, notation: str, text: str) -> str:
    """Half of the time with the notation's name before it, so that the name says what follows."""
    if rng.random() < 0.5:
        return text
    return rng.choice(frames.NOTATION_OPENERS).format(notation=notation) + rng.choice(["\n", "\n\n"]) + text


def structured(rng: random.Random, record: dict) -> str:
    flat = keyed(rng, record)
    style = rng.random()
    if style < 0.40:
        body = nested(rng, flat) if rng.random() < 0.7 else flat
        separators = (",", ":") if rng.random() < 0.7 else (", ", ": ")
        return announced(rng, "JSON", json.dumps(body, ensure_ascii=False, separators=separators))
    if style < 0.70:
        return announced(rng, "YAML", "\n".join(yaml_lines(nested(rng, flat) if rng.random() < 0.7 else flat)))
    if style < 0.80:
        return rng.choice([" ", ",", "\n"]).join(f"{key}={value}" for key, value in flat.items())
    if style < 0.93:
        verb = " ".join(rng.sample(["run", "add", "put", "tool", "ctl", "job", "make", "new"], 2))
        flags = [rng.choice(["--{}={}", "--{} {}", "{}/{}", "{}={}"]).format(k, v) for k, v in flat.items()]
        first = " " + flags.pop().split("=")[-1] if rng.random() < 0.4 else ""
        return verb + first + " " + " ".join(flags)
    return ",".join(flat) + "\n" + ",".join(str(value) for value in flat.values())


def shuffled(rng: random.Random, record: dict, keep: float) -> dict:
    kinds = [kind for kind in record if rng.random() < keep] or list(record)
    rng.shuffle(kinds)
    return {kind: record[kind] for kind in kinds}


def record_text(values: Values) -> str:
    """One record told two or three times in different notations and orders."""
    rng = values.rng
    kinds = rng.sample(list(FIELD_VALUES), rng.randint(2, 5))
    record = {kind: FIELD_VALUES[kind](values) for kind in kinds}
    if rng.random() < 0.25 and "name" in record:  # the same value under several keys, as labels often are
        record[rng.choice(["value", "container", "backend", "owner"])] = record["name"]
    tellings = []
    for turn in range(rng.choice([2, 2, 2, 3])):
        part = shuffled(rng, record, 1.0 if turn == 0 else 0.8)
        if rng.random() < (0.75 if turn == 0 else 0.2):
            tellings.append(prose(rng, part, chinese=rng.random() < 0.45))
        else:
            tellings.append(structured(rng, part))
    return rng.choice(["\n", "\n\n", "\n---\n", "\n"]).join(tellings)


def explanation(values: Values) -> str:
    return values.rng.choice(terms.ANSWERS)


def document(values: Values) -> str:
    """One text of one kind, mostly records."""
    choice = values.rng.random()
    if choice < 0.08:
        return repetition(values)
    if choice < 0.25:
        return association(values)
    if choice < 0.30:
        return mention(values)
    if choice < 0.34:
        return word_list(values)
    return record_text(values) if choice < 0.95 else explanation(values)


def generate(seed: int, characters: int, row_characters: int = 420):
    """Yields rows of about `row_characters` until `characters` are produced."""
    values = Values(random.Random(seed))
    produced = 0
    while produced < characters:
        parts, length = [], 0
        while length < row_characters:
            text = document(values)
            if length and length + len(text) > row_characters * 1.4:
                break
            parts.append(text)
            length += len(text) + 1
        row = "\n".join(parts)
        produced += len(row)
        yield {"text": row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--characters", type=int, default=16_000_000, help="about 2.5 characters are one token")
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    with open(arguments.output, "w", encoding="utf-8") as file:
        for row in generate(arguments.seed, arguments.characters):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
