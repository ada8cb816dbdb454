#include "finetune/base/text.h"

#include "finetune/base/error.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

TEST(Nearest, FindsATypingSlipAndNothingFarAway) {
  const std::vector<std::string> keys = {"lora_rank", "learning_rate", "seed"};
  EXPECT_EQ(nearest("lora_rnak", keys), "lora_rank");
  EXPECT_EQ(nearest("sede", keys), "seed");  // a swap of neighbours is one edit
  EXPECT_EQ(nearest("sxxd", keys), "");      // two edits of four letters are too far
  EXPECT_EQ(nearest("banana", keys), "");
}

TEST(Format, BytesSecondsCounts) {
  EXPECT_EQ(format_bytes(12), "12 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(std::uint64_t{64} << 20), "64 MiB");
  EXPECT_EQ(format_seconds(3.44), "3.4 s");
  EXPECT_EQ(format_seconds(200), "3 min 20 s");
  EXPECT_EQ(format_seconds(7500), "2 h 05 min");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-999), "-999");
}

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8("aé漢😀"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("ab\xff"), 2u);
  EXPECT_EQ(find_invalid_utf8("\xed\xa0\x80"), 0u);  // a surrogate
  EXPECT_EQ(find_invalid_utf8("\xc0\xaf"), 0u);      // an overlong form
  EXPECT_EQ(find_invalid_utf8("a\xe6\xbc"), 1u);     // cut short
}

TEST(JoinProblems, ShowsTenAndCountsTheRest) {
  const std::vector<std::string> problems(12, "p");
  const std::string text = join_problems(problems);
  EXPECT_TRUE(text.ends_with("... and 2 more")) << text;
}

}  // namespace
}  // namespace finetune
