#include "text/split_pattern.h"

#include "text/regex.h"
#include "text/utf8.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace finetune {
namespace {

std::vector<ByteSpan> by_regex(const Regex& regex, std::string_view text) {
  std::vector<ByteSpan> words;
  regex.for_each(text, [&](ByteSpan word) { words.push_back(word); });
  return words;
}

class SplitPattern : public testing::TestWithParam<const char*> {
 protected:
  void expect_equal(const std::string& text) const {
    std::vector<ByteSpan> words;
    find_split_function(GetParam())(text, 0, words);
    ASSERT_EQ(words, by_regex(regex_, text)) << text;
  }
  const Regex regex_{GetParam(), "test"};
};

TEST_P(SplitPattern, EqualsRegexOnEveryCharacter) {
  std::string text;
  int count = 0;
  for (char32_t value = 0; value < 0x110000; ++value) {
    if (value >= 0xD800 && value < 0xE000) continue;
    if (value == 0x40000) value = 0xE0000;  // nothing is assigned between
    if (value == 0xF0000) value = 0x10FF00;
    for (const char* before : {"a", " ", "1", "'", "\n"}) {
      text += before;
      append_utf8(text, value);
    }
    text += " ";
    append_utf8(text, value);
    append_utf8(text, value);
    if (++count % 500 == 0) {
      expect_equal(text);
      text.clear();
    }
  }
  expect_equal(text);
}

TEST_P(SplitPattern, EqualsRegexOnRandomText) {
  const std::vector<std::string> pieces = {"a",
                                           "B",
                                           "1",
                                           "23",
                                           " ",
                                           "  ",
                                           "\n",
                                           "\r",
                                           "\t",
                                           "'s",
                                           "'LL",
                                           "'\xC5\xBF",
                                           "'",
                                           "!",
                                           "-",
                                           "\xC2\xA0",
                                           "\xE3\x80\x80",
                                           "\xC2\x85",
                                           "\xE4\xBD\xA0",
                                           "\xC3\xA9",
                                           "e\xCC\x81",
                                           "\xF0\x9F\x91\x8D",
                                           "\xC2\xBD",
                                           "re",
                                           "_"};
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (std::size_t i = 0, size = random() % 12; i < size; ++i)
      text += pieces[random() % pieces.size()];
    expect_equal(text);
  }
}

INSTANTIATE_TEST_SUITE_P(Published, SplitPattern,
                         testing::Values(kGpt2Pattern, kLlama3Pattern, kQwen2Pattern));

TEST(SplitPattern, KnowsNoOtherPattern) { EXPECT_EQ(find_split_function(R"(\s+)"), nullptr); }

}  // namespace
}  // namespace finetune
