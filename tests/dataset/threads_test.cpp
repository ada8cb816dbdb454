#include "finetune/base/file.h"
#include "finetune/dataset/dataset.h"
#include "support/temporary_folder.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>

namespace finetune {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = fs::path(FINETUNE_SOURCE_DIR) / "tests/fuzz/corpus";

/// Rows that all differ, with what tokenizers and templates treat in their own ways.
std::string many_rows() {
  std::string rows;
  for (int i = 0; i < 700; ++i) {
    rows +=
        fmt::format(R"({{"messages": [{{"role": "user", "content": "hello a {} \u00e4\u0301?"}},)"
                    R"( {{"role": "assistant", "content": " he{} aaa, {} \ud83d\udc4d\nhello"}}]}})"
                    "\n",
                    i, std::string(static_cast<std::size_t>(i % 40), 'l'), i * 7919);
  }
  return rows;
}

/// Threads share one tokenizer and one template. The thread sanitizer (preset `threads`) looks at
/// what they touch; here the tokens must be those of one thread.
class ThreadsTest : public ::testing::TestWithParam<fs::path> {};

TEST_P(ThreadsTest, ReadTheSameTokens) {
  const TemporaryFolder folder;
  const fs::path file = kCorpus / GetParam();
  fs::copy(file,
           folder.path() / (file.extension() == ".json" ? "tokenizer.json" : "tokenizer.model"));
  std::ofstream(folder.path() / "tokenizer_config.json")
      << R"({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})";
  std::ofstream(folder.path() / "chat.jinja")
      << "{% for m in messages %}{{ m.role | upper }}: {{ m.content | trim }}{{ eos_token }}"
         "{% endfor %}";
  std::ofstream(folder.path() / "rows.jsonl") << many_rows();
  const auto tokenizer = load_tokenizer(folder.path());
  if (!tokenizer->specials().eos_id) GTEST_SKIP() << "it has no end";
  DatasetSpec spec;
  spec.path = (folder.path() / "rows.jsonl").string();
  DatasetOptions options;
  options.keep_texts = true;  // and no cache
  const int threads = at::get_num_threads();
  for (const std::string& name : {std::string("alpaca"), (folder.path() / "chat.jinja").string()}) {
    const auto chat = load_chat_template(folder.path(), name, *tokenizer);
    at::set_num_threads(4);
    const Dataset together = open_dataset({spec}, *tokenizer, *chat, options);
    at::set_num_threads(1);
    const Dataset alone = open_dataset({spec}, *tokenizer, *chat, options);
    ASSERT_EQ(together.examples.size(), 700u);
    EXPECT_EQ(together.content_hash, alone.content_hash);
    for (std::size_t i = 0; i < alone.examples.size(); ++i) {
      ASSERT_EQ(together.examples[i].input_ids, alone.examples[i].input_ids);
      ASSERT_EQ(together.examples[i].supervised, alone.examples[i].supervised);
    }
  }
  at::set_num_threads(threads);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, ThreadsTest,
                         ::testing::Values("tokenizer_json/bytes.json", "tokenizer_json/words.json",
                                           "tokenizer_model/bpe.model",
                                           "tokenizer_model/unigram.model"));

}  // namespace
}  // namespace finetune
