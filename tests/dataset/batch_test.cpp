#include "finetune/dataset/batch.h"

#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <numeric>

namespace finetune {
namespace {

/// Examples of the given lengths; example i has the tokens 100 i, 100 i + 1, ...; odd tokens are
/// supervised.
Dataset dataset_of(const std::vector<std::int64_t>& lengths) {
  Dataset dataset;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    Example example;
    for (std::int64_t t = 0; t < lengths[i]; ++t) {
      example.input_ids.push_back(static_cast<std::int32_t>(100 * i + static_cast<std::size_t>(t)));
      example.supervised.push_back(t % 2 == 1 ? 1 : 0);
      example.supervised_tokens += t % 2;
    }
    dataset.examples.push_back(std::move(example));
  }
  return dataset;
}

std::vector<std::int64_t> values(const Tensor& tensor) {
  return {tensor.const_data_ptr<std::int64_t>(),
          tensor.const_data_ptr<std::int64_t>() + tensor.numel()};
}

std::vector<std::int64_t> sorted_flat(const std::vector<std::vector<std::int64_t>>& batches) {
  std::vector<std::int64_t> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<std::int64_t> first_numbers(std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
  return numbers;
}

TEST(Batch, IsRagged) {
  const Dataset dataset = dataset_of({3, 4, 2});
  const std::vector<std::int64_t> chosen = {1, 2};
  const Batch batch = make_batch(dataset, chosen).to(at::kCPU);
  EXPECT_EQ(values(batch.input_ids), (std::vector<std::int64_t>{100, 101, 102, 103, 200, 201}));
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 4, 6}));
  EXPECT_EQ(values(batch.target_rows), (std::vector<std::int64_t>{0, 2, 4}));
  EXPECT_EQ(values(batch.targets), (std::vector<std::int64_t>{101, 103, 201}));
  EXPECT_EQ(batch.examples, chosen);
  EXPECT_EQ(batch.tokens(), 6);
  EXPECT_EQ(batch.sequences(), 2);
  EXPECT_EQ(batch.supervised_tokens(), 3);
}

TEST(PlanEpoch, KeepsTheOrderWithoutShuffle) {
  const Dataset dataset = dataset_of({2, 2, 2, 2, 2});
  const auto batches = plan_epoch(dataset, {.shuffle = false, .examples_per_batch = 2}, 1);
  EXPECT_EQ(batches, (std::vector<std::vector<std::int64_t>>{{0, 1}, {2, 3}, {4}}));
}

TEST(PlanEpoch, ShuffleIsAFunctionOfSeedAndEpoch) {
  const Dataset dataset = dataset_of(std::vector<std::int64_t>(50, 2));
  const BatchPlanOptions options{.seed = 7, .examples_per_batch = 8};
  const auto batches = plan_epoch(dataset, options, 0);
  EXPECT_EQ(batches.size(), 7u);
  EXPECT_EQ(sorted_flat(batches), first_numbers(50));
  EXPECT_EQ(plan_epoch(dataset, options, 0), batches);
  EXPECT_NE(plan_epoch(dataset, options, 1), batches);
  EXPECT_NE(plan_epoch(dataset, {.seed = 8, .examples_per_batch = 8}, 0), batches);
}

TEST(PlanEpoch, FillsUpToTheBudget) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 3000; ++i) lengths.push_back(2 + i * i % 90);
  lengths[17] = 400;
  const Dataset dataset = dataset_of(lengths);
  const BatchPlanOptions options{.seed = 3, .tokens_per_batch = 256};
  const auto batches = plan_epoch(dataset, options, 2);
  EXPECT_EQ(sorted_flat(batches), first_numbers(3000));
  std::int64_t total = 0;
  for (const auto& batch : batches) {
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      tokens += lengths[static_cast<std::size_t>(batch[i])];
      if (i > 0) {
        EXPECT_GE(lengths[static_cast<std::size_t>(batch[i - 1])],
                  lengths[static_cast<std::size_t>(batch[i])]);
      }
    }
    EXPECT_TRUE(tokens <= 256 || batch == std::vector<std::int64_t>{17}) << tokens;
    total += tokens;
  }
  // A batch is nearly full: at most one a window, and the long example, are not.
  EXPECT_LT(static_cast<double>(batches.size()), 1.03 * static_cast<double>(total) / 256);
  EXPECT_EQ(plan_epoch(dataset, options, 2), batches);
  EXPECT_NE(plan_epoch(dataset, options, 3), batches);

  const auto fixed = plan_epoch(dataset, {.shuffle = false, .tokens_per_batch = 256}, 0);
  EXPECT_EQ(sorted_flat(fixed), first_numbers(3000));
  EXPECT_EQ(plan_epoch(dataset, {.shuffle = false, .tokens_per_batch = 256}, 5), fixed);
}

}  // namespace
}  // namespace finetune
