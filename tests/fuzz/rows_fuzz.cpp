#include "dataset/fake_tokenizer.h"
#include "finetune/dataset/dataset.h"
#include "finetune/formats/jsonl.h"
#include "fuzz/fuzz.h"

/// A data file: its rows one by one, then as a data set of answers and one of pairs.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  static const FakeTokenizer tokenizer;
  static const auto chat = load_chat_template(folder.path(), "llama2", tokenizer);
  constexpr std::int64_t kMaxRowBytes = 1 << 20;
  DatasetSpec spec;
  spec.path = folder.write("rows.jsonl", fuzz::text_of(data, size)).string();
  fuzz::only_errors([&] {
    JsonRowReader reader(spec.path, spec.path, kMaxRowBytes);
    std::int64_t line = 0;
    for (bool more = true; more;) {
      fuzz::only_errors([&] {
        const auto row = reader.next();
        more = row.has_value();
        if (row) fuzz::promise(row->line >= std::exchange(line, row->line), "lines ascend");
      });
    }
  });
  for (const bool pairs : {false, true}) {
    fuzz::only_errors([&] {
      DatasetOptions options;
      options.pairs = pairs;
      options.keep_texts = !pairs;
      options.max_row_bytes = kMaxRowBytes;
      for (const Example& example : open_dataset({spec}, tokenizer, *chat, options).examples) {
        fuzz::promise(example.supervised.size() == example.input_ids.size(), "a mark for a token");
        fuzz::promise(example.supervised_tokens > 0, "something to learn");
        fuzz::promise(example.supervised.front() == 0, "the first token is never learned");
      }
    });
  }
  return 0;
}
