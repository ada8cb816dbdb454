"""Chat templates beside transformers' own renderer (Jinja2): recorded conversations, every feature, and random expressions."""

import calendar
import json
import random

import program
import pytest

GOLDEN = program.SHARED_DIR / "data/golden/templates"
GOLDEN_NOW = str(calendar.timegm((2024, 7, 26, 0, 0, 0)))  # the recorded renderings were made on that day
MESSAGES = [{"role": "user", "content": "Hi ä <b>"}, {"role": "assistant", "content": " Yo! \n", "n": 3}]


def ours(template, rows, folder, now=GOLDEN_NOW):
    """What `inspect template` prints for rows of variables; the error where the template does not parse."""
    file = template
    if not isinstance(template, str) or not template.isidentifier():
        file = folder / "template.jinja"
        file.write_bytes(template.encode())
    done = program.run("inspect", "template", "--template", file, expect=None, env={"SOURCE_DATE_EPOCH": now},
                       stdin="".join(json.dumps(row) + "\n" for row in rows))
    if done.returncode == 4:
        return [{"error": done.stderr}] * len(rows)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def peer(template, row):
    compile_template = pytest.importorskip("transformers.utils.chat_template_utils")._compile_jinja_template
    try:
        return {"text": compile_template(template).render(**{"tools": None, "documents": None, "add_generation_prompt": False,
                                                             "bos_token": "<s>", "eos_token": "</s>", **row})}
    except Exception as error:  # whatever Jinja2 or Python refuses
        return {"error": f"{type(error).__name__}: {error}"}


def same(mine, theirs):
    return mine.get("text") == theirs.get("text") if "text" in theirs else "error" in mine


def golden_rows(file):
    golden = json.loads(file.read_text(encoding="utf-8"))
    for case in golden["cases"]:
        row = {key: case[key] for key in ("messages", "tools", "add_generation_prompt")}
        yield golden, case, {**row, "bos_token": golden["bos_token"], "eos_token": golden["eos_token"]}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no recorded renderings here")
def test_recorded_conversations(tmp_path):
    different, count = [], 0
    for file in sorted(GOLDEN.glob("*.json")):
        cases = list(golden_rows(file))
        for (_, case, _), mine in zip(cases, ours(cases[0][0]["template"], [row for _, _, row in cases], tmp_path), strict=True):
            count += 1
            theirs = {"text": case["rendered"]} if "rendered" in case else {"error": case["error"]}
            if not same(mine, theirs):
                different.append((file.name, case["name"], mine, theirs))
    assert count > 400
    assert not different, different[:3]


# Ours -> the recorded templates of the same family.
FAMILIES = {"llama3": "templates-trl_llama3.jinja", "mistral": "templates-axolotl_mistral_v1.jinja", "gemma": "templates-axolotl_gemma.jinja",
            "phi3": "templates-trl_phi3.jinja", "qwen": "templates-chujiezheng_qwen2.5-instruct.jinja"}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no recorded renderings here")
@pytest.mark.parametrize("name", FAMILIES)
def test_built_in_templates_are_the_published_ones(name, tmp_path):
    cases = list(golden_rows(GOLDEN / f"{FAMILIES[name]}.json"))
    for (_, case, row), mine in zip(cases, ours(name, [row for _, _, row in cases], tmp_path), strict=True):
        theirs = {"text": case["rendered"]} if "rendered" in case else {"error": case["error"]}
        assert same(mine, theirs), (case["name"], mine, theirs)


FEATURES = [
    "{% for m in messages %}{{ loop.index }}{{ m.role }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{{ a }}",
    "{% for i in range(5) if i is odd %}{{ loop.index0 }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{% else %}x{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{% endfor %}{{ ns.n }}",
    "{% macro f(x, y='d') -%} {{ x }}{{ y }}{{ varargs }}{{ kwargs }} {%- endmacro %}{{ f(1) }}{{ f(1, 2, 3, z=4) }}",
    "{% macro f() %}<{{ caller('a') }}>{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}",
    "{{ messages | tojson }} {{ messages | tojson(indent=4) }} {{ messages[0] | tojson(sort_keys=true, separators=(',', ':')) }}",
    "{{ messages }} {{ messages[1].n / 2 }} {{ messages[1].n // 2 }} {{ messages[1].missing }}|",
    "{{ messages | map(attribute='content') | map('trim') | join('|') }} {{ messages | selectattr('n') | list | length }}",
    "{{ messages[0].content | escape }} {{ messages[0].content[3:] | upper }} {{ messages[1].content | trim | replace('o', '0') }}",
    "{{ messages[0].content.split(' ', 1) }} {{ 'a,b,,c'.split(',') }} {{ ' a b '.rsplit(None, 1) }} {{ 'a\\nb\\r\\nc'.splitlines() }}",
    "  {% if true %}\n    a\n  {%- else %}\n b{% endif %}\n{# c #}\n  d {{- 'e' -}}  f\n",
    "{{ '%s|%5.1f|%-4s|%04d' % ('a', 2.25, 'b', 7) }} {{ '{:>5}|{:<5}|{:^5}|{:05.1f}|{:,}'.format('a', 'b', 'c', 2.5, 12345) }}",
    "{{ [3, 1, 2] | sort }} {{ [3, 1] | sort(reverse=true) }} {{ {'b': 1, 'A': 2} | dictsort }} {{ ['b', 'A', 'b'] | unique | list }}",
    "{{ [{'k': 'b', 'v': 1}, {'k': 'a', 'v': 2}, {'k': 'b', 'v': 3}] | groupby('k') }} {{ [1, 2, 3, 4, 5] | batch(2, 0) | list }}",
    "{{ undefined_name }}{{ undefined_name | default('d') }}{{ undefined_name is defined }}{{ undefined_name or 'x' }}",
    "{{ undefined_name.x }}", "{{ messages.append(1) }}", "{{ {'a': 1}.update(b=2) }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ [1] | nothing }}",
    "{{ raise_exception('no') }}", "{{ messages[0]['x']['y'] }}", "{% for x in 5 %}{% endfor %}", "{% set x.y = 1 %}", "{{ none + 1 }}",
    "{{ 1e100 }} {{ 0.1 + 0.2 }} {{ 1e-7 }} {{ 123456789012345678 }} {{ 2 ** 62 }} {{ 7.0 }} {{ -0.0 }} {{ 1.5e300 * 1e10 }}",
    "{{ ['it\\'s', \"a\\\"b\", 'é\\u200b\\n', none, 1.0, (1,), {'a': [true]}] }}",
    "{{ 'ÀÉ ß ǆ'.lower() }} {{ 'àé ß'.upper() }} {{ 'hello wORLD-x'.title() }} {{ 'hELLO'.capitalize() }} {{ '\\u2003a\\u00a0'.strip() }}|",
    "{{ strftime_now('%Y') | length }} {{ range(3) }} {{ dict(a=1) }} {{ cycler('a', 'b').next() }} {{ joiner(',')() }}",
    "{% set x %}a{% endset %}{% set y | upper %}b{{ x }}{% endset %}{{ x + y }}{% filter replace('a', 'c') %}aba{% endfilter %}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}{% with a = 1 %}{{ a }}{% endwith %}",
    "{{ 'abc' is string }}{{ 1 is number }}{{ {} is mapping }}{{ [] is iterable }}{{ 'a' is in 'abc' }}{{ 1 is sameas 1 }}{{ 4 is divisibleby 2 }}",
    "{{ 3.7 | int }} {{ 'x' | int(9) }} {{ '2.5' | float }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(0, 'ceil') }}",
    "{{ 'a b' | wordcount }} {{ 'hello world again' | truncate(12) }} {{ 'a\\nb' | indent(2, true) }} {{ [1, 2] | first }}{{ [1, 2] | last }}",
]


def test_features(tmp_path):
    different = []
    for template in FEATURES:
        row = {"messages": MESSAGES}
        mine, theirs = ours(template, [row], tmp_path)[0], peer(template, row)
        if not same(mine, theirs):
            different.append((template, mine, theirs))
    assert not different, different


# Every value has a name: Jinja2 computes what is constant in other ways ('ab'[:2.5] is "" there, and an error elsewhere).
VALUES = {"s1": "aB c", "s2": "é,ü", "s3": "", "s4": "12", "s5": " x\n", "s6": "a.b.a", "n0": 0, "n1": 1, "m2": -2, "n3": 3, "f2": 2.5,
          "yes": True, "no": None, "l0": [], "l3": [1, 2, 3], "la": ["b", "A"], "d2": {"k": 1, "j": [2]}, "d0": {}, "messages": MESSAGES}


class Expressions:
    """Random expressions that mostly mean something."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def text(self, depth):
        if depth == 0:
            return self.pick("s1", "s2", "s3", "s4", "messages[0].content", "s5", "s6", "nothing")
        text, other, number = self.text(depth - 1), self.text(depth - 1), self.number(depth - 1)
        return self.pick(f"{text} + {other}", f"({text} ~ {number})", f"({text})[{number}:]", f"({text})[:{number}]", f"({text})[::-1]",
                         f"({text}).{self.pick('upper', 'lower', 'title', 'capitalize', 'strip', 'swapcase')}()",
                         f"({text}) | {self.pick('trim', 'upper', 'lower', 'title', 'capitalize', 'reverse', 'string', 'e', 'tojson', 'indent')}",
                         f"({text}).replace({other}, {text})", f"({self.list(depth - 1)}) | join({other})",
                         f"({text} if {self.any(depth - 1)} else {other})", f"({text}).center(7)", f"({text}).zfill(4)",
                         f"({text}) | default({other}, true)", f"({text}).strip({other})", f"'%s-%r' % ({text}, {self.any(depth - 1)})",
                         f"'{{}}:{{!r}}'.format({text}, {number})", f"({self.any(depth - 1)}) | string")

    def number(self, depth):
        if depth == 0:
            return self.pick("n0", "n1", "m2", "n3", "f2", "yes", "no")
        a, b = self.number(depth - 1), self.number(depth - 1)
        return self.pick(f"({a} + {b})", f"({a} * {b})", f"({a} - {b})", f"({a} // {b})", f"({a} % {b})", f"({a} / {b})", f"-({a})",
                         f"({self.text(depth - 1)}) | length", f"({self.list(depth - 1)}) | length", f"({a}) | round", f"({a}) | int",
                         f"({self.text(depth - 1)}).find({self.text(depth - 1)})", f"({self.text(depth - 1)}).count({self.text(depth - 1)})",
                         f"({a}) | abs", f"({self.text(depth - 1)}) | int", f"({self.list(depth - 1)}) | sum")

    def list(self, depth):
        if depth == 0:
            return self.pick("l0", "l3", "la", "messages", "s1", "range(4)", "(n1, s1)", "d2")
        items, other = self.list(depth - 1), self.list(depth - 1)
        return self.pick(f"[{self.any(depth - 1)}, {self.any(depth - 1)}]", f"({items}) | list", f"({items})[1:]", f"({items})[::2]",
                         f"(({items}) | list) + (({other}) | list)", f"({items}) | map('string') | list", f"({items}) | select | list",
                         f"({self.text(depth - 1)}).split({self.text(depth - 1)})", f"({self.text(depth - 1)}).split()",
                         f"({items}) | unique | list", f"({items}) | sort", f"({items}) | reverse | list",
                         f"({items}) | reject('none') | list", f"({items}) | batch(2) | list", f"(({items}) | list) * 2")

    def any(self, depth):
        if depth == 0:
            return self.pick("no", "yes", "nothing", "f2", "s1", "l3", "d0")
        a, b = self.any(depth - 1), self.any(depth - 1)
        return self.pick(f"({a} == {b})", f"({a} < {b})", f"({a} in {b})", f"({a} and {b})", f"({a} or not {b})",
                         f"({a} is {self.pick('defined', 'none', 'string', 'number', 'mapping', 'sequence', 'iterable')})",
                         f"({a}) | tojson", self.text(depth), self.number(depth), self.list(depth))


@pytest.mark.parametrize("seed", range(5))
def test_random_expressions(seed, tmp_path):
    """One template for each expression would start the program as often, so all stand in one that chooses by a variable."""
    pytest.importorskip("transformers")
    expressions = Expressions(seed)
    bodies = ["{{ " + expressions.any(2 + i % 2) + " }}" for i in range(300)]
    chosen = "".join(f"{{% {'elif' if i else 'if'} case == {i} %}}{body}" for i, body in enumerate(bodies)) + "{% endif %}"
    rows = [{**VALUES, "case": i} for i in range(len(bodies))]
    different = []
    for body, row, mine in zip(bodies, rows, ours(chosen, rows, tmp_path), strict=True):
        theirs = peer(body, row)
        if " at 0x" in theirs.get("text", "") or "too large" in theirs.get("error", "") or "64 bits" in mine.get("error", ""):
            continue  # addresses, and integers that do not fit
        if not same(mine, theirs):
            different.append((body, mine, theirs))
    assert not different, different[:5]
