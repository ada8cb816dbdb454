#include "dataset/cache.h"

#include "finetune/base/file.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <fstream>

namespace finetune {
namespace {

Dataset small_dataset() {
  Dataset dataset;
  dataset.content_hash = "abc";
  dataset.examples = {{{1, 5, 9, 2}, {0, 0, 1, 1}, 2, {0, 3}}, {{1, 7}, {0, 1}, 1, {1, 12}}};
  dataset.summary = {
      .rows = 4, .dropped = 1, .truncated = 1, .tokens = 6, .supervised_tokens = 3, .longest = 4};
  return dataset;
}

TEST(DatasetCache, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  const DatasetCache cache(folder.path() / "made");
  EXPECT_FALSE(cache.read("k"));
  const Dataset written = small_dataset();
  cache.write("k", written);
  const auto read = cache.read("k");
  ASSERT_TRUE(read);
  EXPECT_FALSE(cache.read("other"));
  ASSERT_EQ(read->examples.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->examples[i].input_ids, written.examples[i].input_ids);
    EXPECT_EQ(read->examples[i].supervised, written.examples[i].supervised);
    EXPECT_EQ(read->examples[i].supervised_tokens, written.examples[i].supervised_tokens);
    EXPECT_EQ(read->examples[i].origin.file, written.examples[i].origin.file);
    EXPECT_EQ(read->examples[i].origin.line, written.examples[i].origin.line);
  }
  EXPECT_EQ(read->content_hash, "abc");
  EXPECT_EQ(read->summary.rows, 4);
  EXPECT_EQ(read->summary.dropped, 1);
  EXPECT_EQ(read->summary.truncated, 1);
  EXPECT_EQ(read->summary.tokens, 6);
  EXPECT_EQ(read->summary.supervised_tokens, 3);
  EXPECT_EQ(read->summary.longest, 4);
}

TEST(DatasetCache, DamageCountsAsAbsent) {
  const TemporaryFolder folder;
  const DatasetCache cache(folder.path());
  cache.write("k", small_dataset());
  const auto file = folder.path() / "dataset-k.safetensors";
  const std::string whole = read_file(file, ErrorKind::data);
  for (const std::string& damaged :
       {std::string(), whole.substr(0, whole.size() / 2), std::string(64, 'x')}) {
    std::ofstream(file, std::ios::binary) << damaged;
    EXPECT_FALSE(cache.read("k")) << damaged.size();
  }
}

TEST(DatasetCache, KeepsTheNewestFiles) {
  const TemporaryFolder folder;
  const DatasetCache cache(folder.path());
  for (int i = 0; i < 20; ++i) {
    const std::string key = "k" + std::to_string(i);
    cache.write(key, small_dataset());
    std::filesystem::last_write_time(
        folder.path() / ("dataset-" + key + ".safetensors"),
        std::filesystem::file_time_type::clock::now() - std::chrono::hours(100 - i));
  }
  EXPECT_FALSE(cache.read("k0"));
  EXPECT_TRUE(cache.read("k19"));
}

TEST(DatasetCache, WithoutAFolderThereIsNone) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "not a folder";
  for (const DatasetCache& cache :
       {DatasetCache(std::filesystem::path()), DatasetCache(folder.path() / "file" / "under")}) {
    cache.write("k", small_dataset());
    EXPECT_FALSE(cache.read("k"));
  }
}

}  // namespace
}  // namespace finetune
