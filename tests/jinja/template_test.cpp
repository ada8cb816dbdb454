#include "finetune/jinja/template.h"

#include "finetune/base/error.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace finetune::jinja {
namespace {

using nlohmann::ordered_json;

std::string render(const std::string& source,
                   const ordered_json& variables = ordered_json::object()) {
  return Template::parse(source, "t").render(variables).text;
}

/// The message of the error that rendering or parsing ends with; the kind must be the one given.
std::string problem(const std::string& source, ErrorKind kind,
                    const ordered_json& variables = ordered_json::object()) {
  try {
    render(source, variables);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error: " << source;
  return "";
}

struct Case {
  std::string source, expected;
};

void expect_all(const std::vector<Case>& cases,
                const ordered_json& variables = ordered_json::object()) {
  for (const Case& one : cases)
    EXPECT_EQ(render(one.source, variables), one.expected) << one.source;
}

// The expected values of all tables here are what Jinja2 3.1.6 prints in transformers' environment.

TEST(JinjaTest, WhiteSpace) {
  expect_all({
      {"a\n{% if true %}\nb\n{% endif %}\nc\n", "a\nb\nc"},
      {"  {% if true %}x{% endif %}  \n  y", "x  \n  y"},
      {"a  {%- if true -%}  b  {%- endif -%}  c", "abc"},
      {"a\n  {%+ if true %}\nb{% endif +%}\nc", "a\n  b\nc"},
      {"{# c #}\nx{#- d -#}  y", "xy"},
      {"{{ 'a' }}\nb", "a\nb"},
      {"  {{- 'a' -}}  b", "ab"},
      {"{% raw %}{{ x }}{% endraw %}\nx", "{{ x }}x"},
      {"a\r\nb\rc", "a\nb\nc"},
      {"x\n\n", "x\n"},
  });
}

TEST(JinjaTest, Expressions) {
  expect_all({
      {"{{ 2**3**2 }} {{ -1|abs }} {{ 7//2 }} {{ -7//2 }} {{ -7%3 }} {{ 6/2 }} {{ 2**-1 }}",
       "64 1 3 -4 2 3.0 0.5"},
      {"{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ (1,2) == [1,2] }}",
       "True True True False"},
      {"{{ 'a' 'b' ~ 1 ~ none ~ x }}", "ab1None"},
      {"{{ [1,2,3][::-1] }} {{ 'h\xC3\xA4t'[1] }} {{ 'abc'[-2:] }} {{ [1][5] }}|",
       "[3, 2, 1] \xC3\xA4 bc |"},
      {"{{ 1 if x else 2 }} {{ 1 if x }}|", "2 |"},
      {"{{ not x and 'b' or 'c' }} {{ 1 not in [2] }} {{ 'b' in 'abc' }}", "b True True"},
      {"{{ {'a': {'b': 1}}.a['b'] }} {{ [5,6].1 }} {{ {1: 2}[1] }}", "1 6 2"},
      {"{{ '\\d \\x41 \\101 \\u00e4\\n' }}", "\\d A A \xC3\xA4\n"},
      {"{{ 1_000 }} {{ 0x1F }} {{ 1.5e3 }} {{ 1e16 }} {{ 0.00001 }} {{ 1e15 }}",
       "1000 31 1500.0 1e+16 1e-05 1000000000000000.0"},
      {"{{ ['a\\'b', 'q\"', '\\n\\t\\x00'] }}", "[\"a'b\", 'q\"', '\\n\\t\\x00']"},
      {"{{ [x, none, true, (1,), {'a': 1.0}] }}", "[Undefined, None, True, (1,), {'a': 1.0}]"},
      {"{{ '%s %5.2f|%-4d|%03d' % ('a', 2.5, 7, 9) }} {{ '{} {a!r:>4}'.format(1, a='b') }}",
       "a  2.50|7   |009 1  'b'"},
      {"{{ (('<'|safe) + '<') }} {{ ('<'|safe) ~ '<' }}", "<&lt; <<"},
  });
}

TEST(JinjaTest, Statements) {
  expect_all({
      {"{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}", "x1"},
      {"{% for i in [1,2,3] if i > 1 %}{{ loop.index }}/{{ loop.length }}{{ loop.previtem }}{{ "
       "loop.nextitem }} {% endfor %}",
       "1/23 2/22 "},
      {"{% for i in [] %}{% else %}none{% endfor %}", "none"},
      {"{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break "
       "%}{% endif %}{{ i }}{% endfor %}",
       "02"},
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% "
       "set x = 3 %}{% endif %}{{ x }}",
       "213"},
      {"{% set ns = namespace(a=1) %}{% for i in [1,2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ "
       "ns.a }}",
       "4"},
      {"{% set x | upper %}a{{ 1 }}b{% endset %}{{ x }}", "A1B"},
      {"{% set a, b = 1, 2 %}{{ b }}{{ a }}", "21"},
      {"{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ "
       "m(1, 3, 4, c=5) }}",
       "12(){}13(4,){'c': 5}"},
      {"{% macro m() %}[{{ caller(1) }}]{% endmacro %}{% call(x) m() %}{{ x }}!{% endcall %}",
       "[1!]"},
      {"{% macro a(n) %}{{ n }}{{ a(n - 1) if n else '' }}{% endmacro %}{{ a(3) }}", "3210"},
      {"{% filter upper %}a{{ x }}{% endfilter %}{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith "
       "%}{{ a }}",
       "A12"},
      {"{% generation %}a{% endgeneration %}", "a"},
      {"{% for i in [1,1,2] %}{{ loop.changed(i) }}{{ loop.cycle('a','b') }}{{ loop.revindex }} {% "
       "endfor %}",
       "Truea3 Falseb2 Truea1 "},
  });
}

TEST(JinjaTest, FiltersAndTests) {
  expect_all({
      {"{{ [{'a':1},{'b':2}]|map(attribute='a')|list }} {{ ['a']|map('upper')|join }}",
       "[1, Undefined] A"},
      {"{{ [1,2,3]|select('odd')|list }} {{ [{'a':1},{}]|selectattr('a','defined')|list }}",
       "[1, 3] [{'a': 1}]"},
      {"{{ ['b','A']|sort }} {{ {'b':1,'A':2}|dictsort }} {{ ['b','a','B']|unique|list }}",
       "['A', 'b'] [('A', 2), ('b', 1)] ['b', 'a']"},
      {"{{ {'a':[1,'\xC3\xA4<']}|tojson }} {{ {'a':1}|tojson(indent=2) }} {{ "
       "'\xC3\xA4'|tojson(ensure_ascii=true) }}",
       "{\"a\": [1, \"\xC3\xA4<\"]} {\n  \"a\": 1\n} \"\\u00e4\""},
      {"{{ ' a '|trim }}|{{ 'xay'|replace('a','b') }}|{{ 'a\nb'|indent(2) }}|{{ 'hello "
       "world'|title }}",
       "a|xby|a\n  b|Hello World"},
      {"{{ x|default('d') }} {{ ''|d('e', true) }} {{ '3.7'|int }} {{ 2.5|round }} {{ [3,1]|min }} "
       "{{ [1,2]|sum }}",
       "d e 3 2.0 1 3"},
      {"{{ none is none }} {{ {} is mapping }} {{ 'a' is string }} {{ x is defined }} {{ true is "
       "integer }} {{ 3 is divisibleby 3 }}",
       "True True True False False True"},
      {"{{ ' a  b '.split(' ') }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b '.split() }}",
       "['', 'a', '', 'b', ''] ['a,b', 'c'] ['a', 'b']"},
      {"{{ 'xxaxx'.strip('x') }} {{ 'abc'.startswith(('x','a')) }} {{ 'a'.zfill(3) }} {{ "
       "'aXb'.lower().title() }}",
       "a True 00a Axb"},
      {"{{ {'a':1}.get('b', 2) }} {{ {'a':1}.keys() }} {{ [1,2].index(2) }} {{ range(3) }}",
       "2 dict_keys(['a']) 1 range(0, 3)"},
  });
}

TEST(JinjaTest, ErrorsSayWhere) {
  EXPECT_EQ(problem("a\n{{ x.y }}", ErrorKind::data), "t:2: 'x' is undefined");
  EXPECT_EQ(problem("\n\n{% if x %}", ErrorKind::model),
            "t:3: the template ends inside of {% if %}; expected {% endif %}");
  EXPECT_EQ(problem("{{ 1 | nothing }}", ErrorKind::model), "t:1: No filter named 'nothing'");
  EXPECT_EQ(render("{% if false %}{{ 1 | nothing }}{% endif %}"), "");
  EXPECT_EQ(problem("{{ raise_exception('no') }}", ErrorKind::data), "t:1: no");
  EXPECT_EQ(problem("{{ 'a' + 1 }}", ErrorKind::data),
            "t:1: can only concatenate str (not \"int\") to str");
  EXPECT_NE(problem("{% include 'x' %}", ErrorKind::model).find("not supported"),
            std::string::npos);
  EXPECT_NE(problem("{{ [].append(1) }}", ErrorKind::data).find("would change a 'list'"),
            std::string::npos);
  EXPECT_NE(problem("{{ {}.update(a=1) }}", ErrorKind::data).find("would change a 'dict'"),
            std::string::npos);
  EXPECT_NE(
      problem("{{ ([1]|map('upper'))|tojson }}", ErrorKind::data).find("generator is not JSON"),
      std::string::npos);
  EXPECT_NE(problem("{{ \xFF }}", ErrorKind::model).find("UTF-8"), std::string::npos);
  for (const char* source : {"{{", "{{ 1 }", "{% for %}", "{% endif %}", "{{ a b }}", "{{ 'a }}",
                             "{# a", "{% set 1 = 2 %}", "{{ (1 }}"}) {
    EXPECT_EQ(problem(source, ErrorKind::model).substr(0, 4), "t:1:") << source;
  }
}

TEST(JinjaTest, LimitsHold) {
  const std::vector<std::string> hostile = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x "
      "%}{% endfor %}",
      "{% set ns = namespace(x=[0]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% "
      "endfor %}",
      "{% set ns = namespace(x=[0]) %}{% for i in range(1000) %}{% set ns.x = [ns.x, ns.x] %}{% "
      "endfor %}",
      "{% set ns = namespace(x=[0]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% "
      "endfor %}{{ ns.x }}",
      "{% set ns = namespace(x=[0], y=[0]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] "
      "%}{% set ns.y = [ns.y, ns.y] %}"
      "{% endfor %}{{ ns.x == ns.y }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ 'a' * 1000000000000 }}",
      "{{ range(1000000) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ 'a'.center(100000000000) }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 10 ** 1000 }}",
      "{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}",
  };
  for (const std::string& source : hostile) problem(source, ErrorKind::data);
  problem("{{ " + std::string(5000, '('), ErrorKind::model);
  std::string brackets = "{{ ";
  for (int i = 0; i < 5000; ++i) brackets += "[";
  problem(brackets, ErrorKind::model);
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  problem(sum + " }}", ErrorKind::model);
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{% if 1 %}";
  problem(nested, ErrorKind::model);
  ordered_json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = ordered_json::array({deep});
  problem("x", ErrorKind::data, {{"deep", deep}});
}

/// Values that hold each other must not leak, nor end in an endless recursion.
TEST(JinjaTest, CyclesAreFreed) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns }}"),
            "<Namespace {'me': [<Namespace {...}>]}>");
  EXPECT_EQ(render("{% set ns = namespace() %}{% macro m() %}{{ ns.m is callable }}{% endmacro "
                   "%}{% set ns.m = m %}{{ m() }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in [1,2] %}{% set ns.f = loop.changed %}{% "
                   "endfor %}{{ ns.f(1) }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace(p=0) %}{% for i in range(20000) %}{% set ns = "
                   "namespace(p=ns) %}{% endfor %}x"),
            "x");
}

}  // namespace
}  // namespace finetune::jinja
