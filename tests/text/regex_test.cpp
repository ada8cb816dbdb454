#include "text/regex.h"

#include "finetune/base/error.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace finetune {
namespace {

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  std::vector<std::string> found;
  Regex(pattern, "test").for_each(text, [&](ByteSpan span) {
    found.emplace_back(text.substr(span.begin, span.end - span.begin));
  });
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, HasTheMeaningOfRubySyntax) {
  EXPECT_EQ(matches(R"(\h+)", "xyz 1f-AG"), Strings({"1f", "A"}));
  EXPECT_EQ(matches(R"(\v)", "a\n\vb"), Strings({"\v"}));
  EXPECT_EQ(matches(R"(\s)", "a\xE1\xA0\x8E\x62"), Strings());  // U+180E is no white space
  EXPECT_EQ(matches(R"((?m:a.b))", "a\nb"), Strings({"a\nb"}));
  EXPECT_EQ(matches(R"(^b$)", "a\nb\nc"), Strings({"b"}));
  EXPECT_EQ(matches(R"([a-c&&[^b]]+)", "abcb"), Strings({"a", "c"}));
  EXPECT_EQ(matches(R"([a[x-z]]+)", "bxaz"), Strings({"xaz"}));
  EXPECT_EQ(matches(R"(a{2}+)", "aaaaa"), Strings({"aaaa"}));
  EXPECT_EQ(matches(R"(a{,2}b)", "aaab"), Strings({"aab"}));
  EXPECT_EQ(matches(R"(\p{^L}+)", "a1b"), Strings({"1"}));
  EXPECT_EQ(matches(R"([^\S\n]+)", "a \n\tb"), Strings({" ", "\t"}));
}

TEST(Regex, ReportsEmptyMatches) {
  EXPECT_EQ(matches(R"((?=[A-Z]))", "aBcD"), Strings({"", ""}));
  EXPECT_EQ(matches(R"(x*)", "axb"), Strings({"", "x", ""}));
}

TEST(Regex, SurvivesLongTexts) {
  const std::string spaces(2'000'000, ' ');
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", spaces).size(), 1u);
  EXPECT_EQ(matches(R"((?:a|b)+)", std::string(1'000'000, 'a')).size(), 1u);
}

TEST(Regex, GivesUpOnRunawayPatterns) {
  EXPECT_THROW(matches(R"((a+)+$)", std::string(5000, 'a') + "b"), Error);
}

TEST(Regex, RefusesWhatDoesNotCompile) {
  for (const char* pattern : {"(", "[", "a{2", "\\p{Nonsense}", "(?<"}) {
    try {
      matches(pattern, "a");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::model) << pattern;
    }
  }
}

}  // namespace
}  // namespace finetune
