#include "finetune/rewards/rewards.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

Config config_of(std::vector<std::string> functions, std::vector<double> weights = {}) {
  Config config;
  config.reward_funcs = std::move(functions);
  config.reward_weights = std::move(weights);
  config.origins["reward_funcs"] = "grpo.yaml:7";
  config.origins["reward_weights"] = "grpo.yaml:8";
  return config;
}

/// A judge that wants long answers.
AnswerJudge judge_length(const std::string& folder) {
  if (folder == "missing") fail(ErrorKind::model, "missing: no such folder");
  return [](const std::vector<Completion>& answers) {
    std::vector<double> scores;
    for (const Completion& answer : answers)
      scores.push_back(static_cast<double>(answer.prompt_ids.size() + answer.ids.size()));
    return scores;
  };
}

/// The reward of one answer by one function.
double reward(const std::string& function, const std::string& completion,
              const std::string& reference = "", std::size_t tokens = 1) {
  const Rewards rewards(config_of({function}), judge_length);
  return rewards.of({{"p", completion, reference, std::vector<std::int32_t>(tokens, 5)}})->total[0];
}

TEST(Rewards, Answer) {
  EXPECT_EQ(reward("answer", " The Pod.\n", "a pod"), 1);
  EXPECT_EQ(reward("answer", "a pod or two", "a pod"), 0);
}

TEST(Rewards, Number) {
  EXPECT_EQ(reward("number", "So 3 + 4 = 7.", "#### 7"), 1);
  EXPECT_EQ(reward("number", "7.0", "7"), 1);
  EXPECT_EQ(reward("number", "$1,234.50", "1234.5"), 1);
  EXPECT_EQ(reward("number", "7 or 8", "7"), 0);
  EXPECT_EQ(reward("number", "-7", "7"), 0);
  EXPECT_EQ(reward("number", "none", "7"), 0);
}

TEST(Rewards, LastNumber) {
  const auto expect = [](const char* text, std::optional<double> value) {
    EXPECT_EQ(last_number(text), value) << text;
  };
  expect("", std::nullopt);
  expect("no digit.", std::nullopt);
  expect("1,234,567", 1234567);
  expect("3,14", 14);  // a comma that is no thousands' separator parts two numbers
  expect("1,2,3", 3);
  expect("1,234,56", 56);
  expect(",5", 5);
  expect("x = -2.5 m", -2.5);
  expect("10-5", 5);
  expect(".5", 0.5);
  expect("3.14.", 3.14);
  expect("v1.2.3", 2.3);
  expect("(-4)", -4);
  expect("1000,000", 0);
}

TEST(Rewards, RegexFitsFromEndToEnd) {
  EXPECT_EQ(reward("regex:[a-z]+", " abc \n"), 1);
  EXPECT_EQ(reward("regex:[a-z]+", "abc 1"), 0);
  EXPECT_EQ(reward("regex:.*\\.json", "x.json"), 1);  // a pattern, not a file
  EXPECT_THROW(reward("regex:(a+)+", std::string(40, 'a') + "!"), Error);
}

TEST(Rewards, Schema) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "shape").string();
  write_file_atomically(file, R"({"type": "object", "required": ["name"]})");
  EXPECT_EQ(reward("schema:" + file, R"({"name": 1})"), 1);
  EXPECT_EQ(reward("schema:" + file, R"({"nam": 1})"), 0);
  EXPECT_EQ(reward("schema:" + file, R"({"name": 1)"), 0);
}

TEST(Rewards, LengthFallsToNothingAtTwiceTheTokens) {
  EXPECT_EQ(reward("length:10", "", "", 1), 1);
  EXPECT_EQ(reward("length:10", "", "", 10), 1);
  EXPECT_DOUBLE_EQ(reward("length:10", "", "", 15), 0.5);
  EXPECT_EQ(reward("length:10", "", "", 20), 0);
  EXPECT_EQ(reward("length:10", "", "", 50), 0);
}

TEST(Rewards, CommandReadsAllAnswers) {
  const Rewards rewards(config_of({"command:sed 's/.*\"completion\":\"\\([0-9]*\\)\".*/\\1/'"}),
                        judge_length);
  const RewardTable table = *rewards.of({{"p", "3", "r", {1}}, {"p", "41", "r", {1, 2}}});
  EXPECT_EQ(table.total, (std::vector<double>{3, 41}));
}

TEST(Rewards, SumsAreWeighted) {
  const Rewards rewards(config_of({"regex:a+", "regex:.{3}", "answer"}, {1, -0.5, 2}),
                        judge_length);
  EXPECT_EQ(rewards.names(), (std::vector<std::string>{"regex", "regex_2", "answer"}));
  const RewardTable table = *rewards.of({{"p", "aaa", "aaa", {1}}, {"p", "abc", "x", {1}}});
  EXPECT_EQ(table.by_function, (std::vector<std::vector<double>>{{1, 0}, {1, 1}, {1, 0}}));
  EXPECT_EQ(table.total, (std::vector<double>{2.5, -0.5}));
}

TEST(Rewards, AnAdapterJudgesPromptAndAnswer) {
  const Rewards rewards(config_of({"adapter:runs/reward"}, {0.5}), judge_length);
  const auto table = rewards.of({{"p", "a", "", {1, 2}, {3, 4, 5}}, {"p", "b", "", {1}, {3}}});
  EXPECT_EQ(table->total, (std::vector<double>{2.5, 1}));
  EXPECT_EQ(rewards.names(), std::vector<std::string>{"adapter"});
  EXPECT_THROW(Rewards(config_of({"adapter:missing"}), judge_length), Error);
}

TEST(Rewards, EveryProblemIsToldWithItsPlace) {
  const auto message = [](const Config& config) {
    try {
      const Rewards rewards(config, judge_length);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config);
      return std::string(error.what());
    }
    return std::string("nothing is wrong");
  };
  const std::string several = message(config_of(
      {"anwser", "answer:x", "regex", "regex:(", "schema:/no/file", "length:0", "adapter"}, {1}));
  for (const char* part :
       {"grpo.yaml:7: reward_funcs: 'anwser' is no reward; expected one of: answer, number, "
        "regex:PATTERN",
        "grpo.yaml:7: reward_funcs: 'answer:x': answer takes no argument",
        "grpo.yaml:7: reward_funcs: 'regex': expected regex:PATTERN",
        "grpo.yaml:7: reward_funcs: regex: '(' is no regular expression",
        "grpo.yaml:7: reward_funcs: 'schema:/no/file': /no/file",
        "grpo.yaml:7: reward_funcs: 'length:0': expected a number of tokens above 0",
        "grpo.yaml:7: reward_funcs: 'adapter': expected adapter:FOLDER",
        "grpo.yaml:8: reward_weights has 1 numbers, and reward_funcs 7 rewards"}) {
    EXPECT_NE(several.find(part), std::string::npos) << part << "\n--- in\n" << several;
  }
  EXPECT_NE(message(config_of({})).find("reward_funcs is empty"), std::string::npos);
}

TEST(Rewards, ReferencesThatCannotBeCompared) {
  const Rewards number(config_of({"number"}), judge_length),
      answer(config_of({"answer"}), judge_length), regex(config_of({"regex:a"}), judge_length);
  EXPECT_NE(number.reference_problem("none"), "");
  EXPECT_EQ(number.reference_problem("it is 4"), "");
  EXPECT_NE(answer.reference_problem(" the ."), "");
  EXPECT_EQ(regex.reference_problem(""), "");
}

}  // namespace
}  // namespace finetune
