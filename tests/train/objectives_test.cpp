#include "finetune/train/objectives.h"

#include "finetune/base/error.h"
#include "support/temporary_folder.h"
#include "train/kto.h"

#include "model/tiny_llama.h"

#include <gtest/gtest.h>

#include <fstream>

namespace finetune {
namespace {

Example example(std::vector<std::int32_t> prompt, const std::vector<std::int32_t>& answer) {
  Example made;
  made.supervised.assign(prompt.size(), 0);
  made.supervised.insert(made.supervised.end(), answer.size(), 1);
  made.input_ids = std::move(prompt);
  made.input_ids.insert(made.input_ids.end(), answer.begin(), answer.end());
  made.supervised_tokens = static_cast<std::int64_t>(answer.size());
  return made;
}

class Objectives : public testing::Test {
 protected:
  Objectives() {
    tiny_llama::write(folder_.path(), tiny_llama::config(),
                      tiny_llama::weights(tiny_llama::config()));
    model_ = load_model(folder_.path(), {});
    config_.model_name_or_path = folder_.path().string();
    config_.per_device_train_batch_size = 2;
    setenv("FINETUNE_CACHE_DIR", (folder_.path() / "cache").c_str(), 1);
  }
  ~Objectives() override { unsetenv("FINETUNE_CACHE_DIR"); }

  Dataset pairs() const {
    Dataset data;
    data.files = {"pairs.jsonl"};
    data.examples_per_row = 2;
    data.content_hash = "pairs";
    data.examples = {example({1, 2, 3}, {4, 5}), example({1, 2, 3}, {6}), example({7, 8}, {9, 10}),
                     example({7, 8}, {11, 12, 13})};
    return data;
  }

  TemporaryFolder folder_;
  CausalLM model_;
  Config config_;
};

TEST_F(Objectives, RewardsThatDoNotBeginAtZeroStopTheRun) {
  config_.stage = Stage::dpo;
  const Dataset data = pairs();
  std::vector<double> reference = reference_log_probabilities(config_, model_, data, false);
  const auto check = [&] {
    check_rewards_begin_at_zero(*make_objective(config_, model_, data, reference, false), model_,
                                data, 2, false);
  };
  check();
  reference[2] += 1e-9;  // of the last bits of a float32
  try {
    check();
    FAIL() << "nothing was said";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::training);
    EXPECT_NE(std::string(error.what()).find("exactly 0"), std::string::npos);
  }
}

TEST_F(Objectives, ReferenceIsKeptAndNotTrustedBlindly) {
  for (const Stage stage : {Stage::dpo, Stage::kto}) {
    config_.stage = stage;
    Dataset data = pairs();
    if (stage == Stage::kto) {
      data.examples_per_row = 1;
      data.labels = {1, 0, 1, 0};
    }
    const auto before = make_objective(config_, model_, data, {}, false);
    std::filesystem::path kept;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path() / "cache")) {
      EXPECT_TRUE(kept.empty());
      kept = entry.path();
    }
    ASSERT_FALSE(kept.empty());
    const auto loss_of = [&](const Objective& objective) {
      return objective.evaluate(model_, data, 2, false).loss;
    };
    const double loss = loss_of(*before);
    EXPECT_EQ(loss, loss_of(*make_objective(config_, model_, data, {}, false)));
    // Numbers of another model under this name: found out, and replaced.
    const std::string bytes = read_file(kept, ErrorKind::resource);
    const std::size_t count = data.examples.size() * (stage == Stage::kto ? 2 : 1);
    write_safetensors(
        kept, {{"log_probabilities", at::zeros({static_cast<std::int64_t>(count)}, at::kDouble)}},
        {});
    EXPECT_EQ(loss, loss_of(*make_objective(config_, model_, data, {}, false)));
    EXPECT_EQ(bytes, read_file(kept, ErrorKind::resource));
    std::filesystem::remove_all(folder_.path() / "cache");
  }
}

TEST(Mismatched, AnswersGoRoundInTheirBlock) {
  Dataset data;
  data.files = {"rows.jsonl"};
  for (std::int32_t i = 0; i < 5; ++i)
    data.examples.push_back(example({i, 20}, std::vector<std::int32_t>(i + 1, 10 + i)));
  const Dataset other = mismatched_answers(data, 3, 5);
  const std::vector<std::vector<std::int32_t>> expected = {
      {0, 20, 12, 12, 12}, {1, 20, 10}, {2, 20, 11, 11}, {3, 20, 14, 14, 14}, {4, 20, 13, 13, 13}};
  ASSERT_EQ(other.examples.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(other.examples[i].input_ids, expected[i]) << i;
    EXPECT_EQ(other.examples[i].supervised.size(), expected[i].size());
    EXPECT_EQ(other.examples[i].supervised_tokens,
              static_cast<std::int64_t>(expected[i].size()) - 2);
  }
}

TEST(AddMeans, CountsOfTheirOwn) {
  std::vector<NamedSum> means;
  add_means(means, {{"loss", 6.0}, {"good", 4.0, 2}}, 4);
  add_means(means, {{"loss", 2.0}, {"good", 5.0, 1}, {"bad", 3.0, 3}}, 4);
  ASSERT_EQ(means.size(), 3U);
  EXPECT_EQ(means[0].value, 2.0);
  EXPECT_EQ(means[1].value, 3.0);
  EXPECT_EQ(means[2].value, 1.0);
}

}  // namespace
}  // namespace finetune
