#include "finetune/generate/generate.h"

#include "model/tiny_llama.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <set>

namespace finetune {
namespace {

using Answers = std::vector<std::vector<std::int32_t>>;

class Copies : public ::testing::Test {
 protected:
  Copies() {
    const nlohmann::json config = tiny_llama::config();
    tiny_llama::write(folder_.path(), config, tiny_llama::weights(config));
    model_ = load_model(folder_.path(), {});
    options_.max_new_tokens = 7;
    options_.stop_ids = {3};
    options_.copies = 4;
    options_.sampling.temperature = 1.5;
  }

  Answers answers(std::int64_t slots) {
    options_.slots = slots;
    Answers result;
    for (const Generation& generation : generate(model_, prompts_, options_)) {
      result.push_back(generation.ids);
      EXPECT_EQ(generation.stop_id, generation.finish_reason == "stop" ? 3 : -1);
    }
    return result;
  }

  TemporaryFolder folder_;
  CausalLM model_;
  Answers prompts_ = {{1, 5, 9, 2, 8}, {1, 4}, {7, 7, 16}};
  GenerateOptions options_;
};

/// With few slots a prompt is read again for the answers that found none the first time.
TEST_F(Copies, DoNotDependOnTheSlots) {
  const Answers all = answers(32);
  ASSERT_EQ(all.size(), 12u);
  for (const std::int64_t slots : {1, 2, 3, 5, 12}) EXPECT_EQ(answers(slots), all) << slots;
  EXPECT_GT(std::set<std::vector<std::int32_t>>(all.begin(), all.end()).size(), 6u);
}

TEST_F(Copies, AreThoseOfThePromptAlone) {
  options_.streams = {70, 80, 90};
  const Answers all = answers(32);
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    GenerateOptions alone = options_;
    alone.streams = {options_.streams[i]};
    const std::vector<Generation> own = generate(model_, {prompts_[i]}, alone);
    for (std::size_t copy = 0; copy < 4; ++copy) EXPECT_EQ(own[copy].ids, all[4 * i + copy]);
  }
}

TEST_F(Copies, OfAGreedyAnswerAreAlike) {
  options_.sampling.temperature = 0;
  const Answers all = answers(32);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], all[i / 4 * 4]);
}

}  // namespace
}  // namespace finetune
