#include "finetune/dataset/overlap.h"

#include "dataset/row_hash.h"
#include "finetune/base/file.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

Example row(std::vector<std::int32_t> ids, std::int64_t line,
            std::vector<std::uint8_t> marks = {}) {
  Example example;
  example.input_ids = std::move(ids);
  example.supervised = std::move(marks);
  example.supervised.resize(example.input_ids.size(), 1);
  example.origin = {0, line};
  return example;
}

TEST(OverlapTest, CountsRowsThatSayWhatEarlierOnesSay) {
  Dataset train, eval;
  train.files = {"train.jsonl"};
  eval.files = {"eval.jsonl"};
  train.examples = {row({1, 2}, 1),    row({3}, 2), row({1, 2}, 1),  // a copy that a weight made
                    row({1, 2, 3}, 3), row({3}, 7), row({1, 2}, 5), row({1, 2}, 6, {0, 1})};
  eval.examples = {row({9}, 1), row({1, 2}, 2, {0, 1}), row({3}, 3), row({1, 2}, 4, {1, 0})};
  const RowOverlap overlap = find_overlap(train, &eval);
  EXPECT_EQ(overlap.repeated, 2);
  EXPECT_EQ(overlap.first_repeated, "train.jsonl:7");
  EXPECT_EQ(overlap.shared, 2);
  EXPECT_EQ(overlap.first_shared, "eval.jsonl:2");
  train.examples.resize(1);
  EXPECT_EQ(find_overlap(train, nullptr).repeated, 0);
}

TEST(StreamHashTest, IsTheHashOfTheWholeText) {
  StreamHash hash;
  std::string whole;
  for (int i = 0; i < 100; ++i) {
    const std::string piece(static_cast<std::size_t>(i * 7), static_cast<char>('a' + i % 26));
    whole += piece;
    hash.add(piece);
    ASSERT_EQ(hash.hex(), content_hash(whole));
  }
}

}  // namespace
}  // namespace finetune
