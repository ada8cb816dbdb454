#include "finetune/scores/scorer.h"

#include "finetune/base/error.h"

#include <gtest/gtest.h>

#include <chrono>

namespace finetune {
namespace {

std::string refusal(const ScorerCommand& scorer) {
  try {
    run_scorer(scorer, {"{}", "{}"});
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  return "no error";
}

TEST(Scorer, ANumberALine) {
  EXPECT_EQ(run_scorer({"while read line; do echo ${#line}; done"}, {"ab", "abcd"}),
            (std::vector<double>{2, 4}));
}

TEST(Scorer, WhatItMustNotDo) {
  EXPECT_EQ(refusal({"exit 3", "judge"}),
            "judge 'exit 3': ended with 3; expected 0 and a number a line");
  EXPECT_EQ(refusal({"echo 1"}),
            "scorer 'echo 1': printed 1 numbers for 2 rows; expected one a row");
  EXPECT_EQ(refusal({"echo one"}), "scorer 'echo one': its line 1 is 'one'; expected a number");
  EXPECT_EQ(refusal({"echo nan"}), "scorer 'echo nan': its line 1 is 'nan'; expected a number");
}

/// With all it has started: a child that goes on would hold the machine.
TEST(Scorer, IsEndedWhenItTakesTooLong) {
  const auto begin = std::chrono::steady_clock::now();
  const ScorerCommand slow{"sleep 30 | cat", "scorer", 0.2};
  EXPECT_EQ(refusal(slow),
            "scorer 'sleep 30 | cat': still at work after 0.2 s, and ended; expected an answer in "
            "that time");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

}  // namespace
}  // namespace finetune
