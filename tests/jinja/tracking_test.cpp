#include "finetune/jinja/template.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace finetune::jinja {
namespace {

using nlohmann::ordered_json;

const ordered_json kMessages = {
    {{"role", "user"}, {"content", "Question"}},
    {{"role", "assistant"},
     {"content", "<think>why</think> The answer "},
     {"tool_calls", {{{"name", "get"}, {"arguments", {{"city", "Oslo"}}}}}}}};

/// The rendered text with "<i:...>" around what came from message i.
std::string marked(const std::string& source) {
  const Rendered rendered = Template::parse(source, "t").render({{"messages", kMessages}});
  std::string text;
  std::size_t at = 0;
  for (const Tracked& range : rendered.tracked) {
    text += rendered.text.substr(at, range.begin - at) + "<" + std::to_string(range.message) + ":" +
            rendered.text.substr(range.begin, range.end - range.begin) + ">";
    at = range.end;
  }
  return text + rendered.text.substr(at);
}

TEST(JinjaTrackingTest, OperationsKeepWhereTextCameFrom) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ messages[0].content }}", "<0:Question>"},
      {"{{ messages[0].role }}", "user"},
      {"a{{ 'b' + messages[0].content + 'c' }}d", "ab<0:Question>cd"},
      {"{{ 'b' ~ messages[0]['content'] ~ 1 }}", "b<0:Question>1"},
      {"{{ messages[1].content.split('</think>')[-1] | trim }}", "<1:The answer>"},
      {"{{ messages[0].content[1:3] }}{{ messages[0].content[0] }}", "<0:ueQ>"},
      {"{{ messages[0].content.replace('st', '--') | upper }}", "<0:QUE>--<0:ION>"},
      {"{{ [messages[0].content, 'x', messages[1].content | trim] | join('+') }}",
       "<0:Question>+x+<1:<think>why</think> The answer>"},
      {"{{ '%s|%s' % (messages[0].content, 'y') }}{{ '{}!'.format(messages[0].content) }}",
       "<0:Question>|y<0:Question>!"},
      {"{% for c in messages[0].content %}{{ c }}.{% endfor %}",
       "<0:Q>.<0:u>.<0:e>.<0:s>.<0:t>.<0:i>.<0:o>.<0:n>."},
      {"{{ messages[1].tool_calls[0].arguments | tojson }}", "<1:{\"city\": \"Oslo\"}>"},
      {"{{ messages[1].tool_calls[0].arguments }}", "<1:{'city': 'Oslo'}>"},
      {"{% set x %}[{{ messages[0].content }}]{% endset %}{{ x | indent }}", "[<0:Question>]"},
      {"{% macro m(t) %}({{ t }}){% endmacro %}{{ m(messages[0].content) }}", "(<0:Question>)"},
      {"{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content[:2] "
       "%}{% endfor %}{{ ns.t }}",
       "<0:Qu><1:<t>"},
      {"{{ messages | map(attribute='content') | first | lower | reverse }}", "<0:noitseuq>"},
      {"{{ messages[0].content.center(12, '*') }}{{ messages[0].content | length }}",
       "**<0:Question>**8"},
      {"{{ 'Question' if messages[0].content == 'Question' }}", "Question"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(marked(source), expected) << source;
}

TEST(JinjaTrackingTest, TurnIsTheLoopThatWrites) {
  const Rendered rendered =
      Template::parse(
          "{% for m in messages %}{{ messages[0].content }}{% endfor %}{{ messages[0].content }}",
          "t")
          .render({{"messages", kMessages}});
  const std::vector<Tracked> expected = {{0, 8, 0, 0}, {8, 16, 0, 1}, {16, 24, 0, -1}};
  EXPECT_EQ(rendered.tracked, expected);
}

TEST(JinjaTrackingTest, GenerationBlocks) {
  const Template parsed = Template::parse(
      "{% macro m() %}{% generation %}b{{ messages[0].content }}{% endgeneration %}{% endmacro "
      "%}a{{ m() }}c{% generation %}d{% endgeneration %}",
      "t");
  EXPECT_TRUE(parsed.has_generation());
  const Rendered rendered = parsed.render({{"messages", kMessages}});
  EXPECT_EQ(rendered.text, "abQuestioncd");
  EXPECT_EQ(rendered.generation, (std::vector<Generated>{{1, 10}, {11, 12}}));
  EXPECT_FALSE(Template::parse("a", "t").has_generation());
}

}  // namespace
}  // namespace finetune::jinja
