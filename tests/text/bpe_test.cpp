#include "text/bpe.h"

#include "finetune/base/error.h"
#include "text/stages.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace finetune {
namespace {

/// The definition: merge the leftmost pair of the lowest rank until there is none.
std::vector<std::string> merge_by_definition(
    const std::string& word, const std::vector<std::pair<std::string, std::string>>& merges) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = i;
  std::vector<std::string> parts;
  for (const char byte : word) parts.emplace_back(1, byte);
  while (true) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, at = i;
    }
    if (best == merges.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::string as_characters(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += byte_characters()[static_cast<unsigned char>(byte)];
  return text;
}

/// A byte-level model with merges of parts of characters, of characters, and across them.
TokenizerFile random_file(std::mt19937& random,
                          std::vector<std::pair<std::string, std::string>>& merges) {
  const std::vector<std::string> texts = {"\xE4\xBD\xA0\xE5\xA5\xBD",
                                          "\xE4\xB8\x96\xE7\x95\x8C\xE4\xBD\xA0", "ab\xC3\xA9",
                                          "\xEF\xBC\x8C\xE4\xB8\x96", "abab"};
  TokenizerFile file;
  file.where = "test";
  file.json["model"] = {{"type", "BPE"}};
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (int i = 0; i < 60; ++i) {
    const std::vector<std::string> parts =
        merge_by_definition(texts[random() % texts.size()], merges);
    if (parts.size() < 2) continue;
    const std::size_t at = random() % (parts.size() - 1);
    merges.emplace_back(parts[at], parts[at + 1]);
    tokens.push_back(parts[at] + parts[at + 1]);
  }
  for (std::size_t id = 0; id < tokens.size(); ++id)
    file.lists.vocab.emplace_back(as_characters(tokens[id]), id);
  for (const auto& [left, right] : merges)
    file.lists.merges.emplace_back(as_characters(left), as_characters(right));
  return file;
}

TEST(BpeModel, EqualsTheDefinition) {
  const std::vector<std::string> pieces = {"\xE4\xBD\xA0",
                                           "\xE5\xA5\xBD",
                                           "\xE4\xB8\x96",
                                           "\xE7\x95\x8C",
                                           "a",
                                           "b",
                                           "\xC3\xA9",
                                           "\xEF\xBC\x8C",
                                           "ab"};
  std::mt19937 random(3);
  for (int model_index = 0; model_index < 40; ++model_index) {
    std::vector<std::pair<std::string, std::string>> merges;
    TokenizerFile file = random_file(random, merges);
    BpeModel model(file);
    ASSERT_TRUE(model.take_raw_bytes());
    for (int round = 0; round < 60; ++round) {
      std::string word;
      for (std::size_t i = 0, size = 1 + random() % (round % 10 == 0 ? 120 : 14); i < size; ++i)
        word += pieces[random() % pieces.size()];
      std::vector<WordToken> tokens;
      model.tokenize(word, tokens);
      model.tokenize(word, tokens);  // the second time from the cache
      std::vector<std::string> found;
      for (const WordToken& token : tokens) {
        found.push_back(word.substr(token.begin, token.end - token.begin));
        ASSERT_EQ(*model.vocabulary().content(token.id), as_characters(found.back()));
      }
      std::vector<std::string> expected = merge_by_definition(word, merges);
      const std::vector<std::string> once = expected;
      expected.insert(expected.end(), once.begin(), once.end());
      ASSERT_EQ(found, expected) << word;
    }
  }
}

TEST(BpeModel, RanksMergeAnyTwoNeighbours) {
  std::vector<std::pair<std::string, std::int32_t>> ranks;
  for (int byte = 0; byte < 256; ++byte)
    ranks.emplace_back(std::string(1, static_cast<char>(byte)), byte);
  for (const char* token : {"bc", "ab", "abc", "xyz"})
    ranks.emplace_back(token, static_cast<std::int32_t>(ranks.size()));
  const BpeModel model(ranks, "test");
  const auto ids = [&](std::string_view word) {
    std::vector<WordToken> tokens;
    model.tokenize(word, tokens);
    std::vector<std::int32_t> result;
    for (const WordToken& token : tokens) result.push_back(token.id);
    return result;
  };
  EXPECT_EQ(ids("abc"), std::vector<std::int32_t>({258}));
  EXPECT_EQ(ids("xyz"),
            std::vector<std::int32_t>({259}));  // a word that is a token, without merges
  EXPECT_EQ(ids("xyzx"), std::vector<std::int32_t>({'x', 'y', 'z', 'x'}));
  EXPECT_EQ(ids("bcab"), std::vector<std::int32_t>({256, 257}));
}

TEST(BpeModel, RefusesMergesWithoutTokens) {
  TokenizerFile file;
  file.where = "test";
  file.json["model"] = {{"type", "BPE"}};
  file.lists.vocab = {{"a", 0}, {"b", 1}};
  file.lists.merges = {{"a", "b"}};
  EXPECT_THROW(BpeModel{file}, Error);
}

}  // namespace
}  // namespace finetune
