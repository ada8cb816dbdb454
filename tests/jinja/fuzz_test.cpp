#include "finetune/base/error.h"
#include "finetune/jinja/template.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <random>

namespace finetune::jinja {
namespace {

/// Pieces that templates are made of, put together at random: the result is an Error or a text,
/// never a crash.
TEST(JinjaFuzzTest, MutatedTemplatesEndOrFail) {
  const std::vector<std::string> pieces = {"{% for m in messages %}",
                                           "{% endfor %}",
                                           "{% if m.role == 'user' %}",
                                           "{% elif loop.first %}",
                                           "{% else %}",
                                           "{% endif %}",
                                           "{{ m.content }}",
                                           "{{- m['content'] | trim -}}",
                                           "{{ messages[0].content[::-1] }}",
                                           "{% set x = m %}",
                                           "{% set ns = namespace(a=1) %}",
                                           "{% set ns.a = ns %}",
                                           "{% macro f(a, b=1) %}",
                                           "{% endmacro %}",
                                           "{{ f(1, *messages) }}",
                                           "{{ f(f, b=f) }}",
                                           "{% generation %}",
                                           "{% endgeneration %}",
                                           "{% raw %}",
                                           "{% endraw %}",
                                           "{#",
                                           "#}",
                                           "{{ '%s %d' % (x, 1) }}",
                                           "{{ '{0} {a}'.format(x, a=1) }}",
                                           "{{ messages | tojson(indent=2) }}",
                                           "{{ messages | map(attribute='content') | join }}",
                                           "{% call f(1) %}",
                                           "{% endcall %}",
                                           "{% break %}",
                                           "{{ x[1:2] }}",
                                           "{{ loop.cycle(1, 2) }}",
                                           "{{ loop.nextitem }}",
                                           "{{ range(3) | list }}",
                                           "{{ x | default(y) }}",
                                           "{{ none + 1 }}",
                                           "{{ 'a' * 3 }}",
                                           "{% filter upper %}",
                                           "{% endfilter %}",
                                           "{% set y %}",
                                           "{% endset %}",
                                           "{{ caller() }}",
                                           "{{ x.get('a', {}) }}",
                                           "{{ ",
                                           " }}",
                                           "{% ",
                                           " %}",
                                           "(",
                                           ")",
                                           "[",
                                           "]",
                                           "{",
                                           "}",
                                           "'",
                                           "\"",
                                           "|",
                                           ".",
                                           "~",
                                           "\xC3\xA4",
                                           "\\",
                                           "\n",
                                           " if ",
                                           " else ",
                                           " is ",
                                           " in ",
                                           " not ",
                                           "1",
                                           "-"};
  const nlohmann::ordered_json variables = {{"messages",
                                             {{{"role", "user"}, {"content", "Hi \xC3\xA4"}},
                                              {{"role", "assistant"}, {"content", "yo"}}}},
                                            {"x", {{"a", 1}}}};
  RenderOptions options;
  options.max_steps = 20'000;
  options.max_memory_bytes = std::size_t{8} << 20;
  std::mt19937 random(7);
  int rendered = 0, refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string source;
    for (std::size_t n = 1 + random() % 12; n > 0; --n) source += pieces[random() % pieces.size()];
    try {
      Template::parse(source, "t").render(variables, options);
      ++rendered;
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::internal) << source;
      ++refused;
    }
  }
  EXPECT_GT(rendered, 500);
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace finetune::jinja
