#include "finetune/generate/answer_text.h"

#include "dataset/fake_tokenizer.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

/// Gives the text a byte at a time; returns the pieces that were given out, joined with bars.
std::string pieces(const std::string& text, std::vector<std::string> stops,
                   bool* stopped = nullptr) {
  const FakeTokenizer tokenizer;
  AnswerText answer(tokenizer, std::move(stops));
  std::vector<std::int32_t> ids;
  std::string out;
  for (const std::int32_t id : tokenizer.encode(text).ids) {
    ids.push_back(id);
    const bool stop = answer.update(ids);
    if (const std::string piece = answer.take(); !piece.empty()) out += piece + "|";
    if (stopped != nullptr) *stopped = stop;
    if (stop) break;
  }
  return out + answer.take_rest();
}

TEST(AnswerText, GivesOutWhatIsNew) { EXPECT_EQ(pieces("abc", {}), "a|b|c|"); }

TEST(AnswerText, EndsBeforeTheStopString) {
  bool stopped = false;
  EXPECT_EQ(pieces("ab##cd", {"##"}, &stopped), "a|b|");
  EXPECT_TRUE(stopped);
}

TEST(AnswerText, HoldsBackTheBeginningOfAStopString) {
  bool stopped = true;
  EXPECT_EQ(pieces("a#b#", {"##"}, &stopped), "a|#b|#");
  EXPECT_FALSE(stopped);
}

TEST(AnswerText, TheFirstOfSeveralStopStringsCounts) {
  EXPECT_EQ(pieces("one stop two", {"two", "stop"}), "o|n|e| |");
}

}  // namespace
}  // namespace finetune
