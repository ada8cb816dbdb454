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
  EXPECT_EQ(batch.tokens, 6);
  EXPECT_EQ(batch.sequences(), 2);
  EXPECT_EQ(batch.supervised_tokens(), 3);
}

/// Rows of `prefix` tokens of kind `kind`, then `own` tokens of their own; the last two supervised.
Example row_of(std::int32_t kind, std::int64_t prefix, std::int32_t own) {
  Example example;
  for (std::int64_t t = 0; t < prefix; ++t)
    example.input_ids.push_back(1000 * kind + static_cast<std::int32_t>(t));
  for (std::int32_t t = 0; t < 4; ++t) example.input_ids.push_back(100 * own + t);
  example.supervised.assign(example.input_ids.size(), 0);
  example.supervised.back() = example.supervised[example.input_ids.size() - 2] = 1;
  example.supervised_tokens = 2;
  return example;
}

std::vector<std::int32_t> tokens_before(const Batch& batch, std::int64_t row) {
  const std::vector<std::int64_t> ids = values(batch.input_ids);
  std::size_t s = 0;
  while (batch.starts[s + 1] <= row) ++s;
  std::vector<std::int32_t> tokens;
  const auto add = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i)
      tokens.push_back(static_cast<std::int32_t>(ids[static_cast<std::size_t>(i)]));
  };
  if (!batch.parents.empty() && batch.parents[s] >= 0) {
    const auto parent = static_cast<std::size_t>(batch.parents[s]);
    add(batch.starts[parent], batch.starts[parent + 1]);
  }
  add(batch.starts[s], row + 1);
  return tokens;
}

TEST(SharedPrefixes, StandInTheStreamOnce) {
  Dataset dataset;
  dataset.examples = {row_of(1, 40, 1), row_of(2, 20, 2), row_of(1, 40, 3), row_of(3, 15, 4),
                      row_of(3, 15, 5), row_of(2, 20, 6), row_of(1, 40, 7)};
  const std::vector<std::int64_t> all = first_numbers(7);
  const Batch batch = make_batch(dataset, all, true), plain = make_batch(dataset, all);
  EXPECT_EQ(batch.tokens, plain.tokens);
  EXPECT_EQ(plain.input_ids.numel(), 3 * 44 + 2 * 24 + 2 * 19);
  EXPECT_EQ(batch.input_ids.numel(), plain.input_ids.numel() - 2 * 40 - 20);  // 15 are too few
  EXPECT_EQ(batch.parents, (std::vector<std::int64_t>{-1, 0, 0, 0, -1, 4, 4, -1, -1}));
  EXPECT_TRUE(plain.parents.empty());
  // Every target is predicted from the same tokens as in the plain batch, in the same order.
  EXPECT_EQ(values(batch.targets), values(plain.targets));
  const auto rows = values(batch.target_rows), plain_rows = values(plain.target_rows);
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(tokens_before(batch, rows[i]), tokens_before(plain, plain_rows[i])) << i;
}

TEST(SharedPrefixes, EndBeforeWhatPredictsASupervisedToken) {
  Dataset dataset;
  dataset.examples = {row_of(1, 40, 1), row_of(1, 40, 1)};  // the same row twice
  const Batch batch = make_batch(dataset, first_numbers(2), true);
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 41, 44, 47}));
  for (Example& example : dataset.examples) example.supervised.assign(44, 1);
  EXPECT_TRUE(make_batch(dataset, first_numbers(2), true).parents.empty());
}

TEST(SharedPrefixes, ShorterOneForMoreRowsWhereThatSavesMore) {
  Dataset dataset;
  for (std::int32_t own = 0; own < 4; ++own) {  // 20 tokens alike, then 30 alike in two of them
    Example example = row_of(1, 20, own);
    Example more = row_of(2 + own / 2, 30, own);
    example.input_ids.resize(20);
    example.input_ids.insert(example.input_ids.end(), more.input_ids.begin(), more.input_ids.end());
    example.supervised.assign(example.input_ids.size(), 0);
    example.supervised.back() = 1;
    dataset.examples.push_back(example);
  }
  const Batch batch = make_batch(dataset, first_numbers(4), true);
  // Two groups of 50 save 100; one of 20 would save 60.
  EXPECT_EQ(batch.input_ids.numel(), 4 * 54 - 100);
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
