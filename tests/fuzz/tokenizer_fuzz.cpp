#include "finetune/text/tokenizer.h"

#include "fuzz/fuzz.h"

#include <algorithm>

/// One file of a tokenizer's folder, FUZZED_FILE, beside sound ones where it needs them. What loads
/// can encode any text, and decode any of its tokens.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  static const std::string name = FUZZED_FILE;
  static const bool prepared = [] {
    if (name == "tokenizer_config.json")
      std::filesystem::copy(FINETUNE_FUZZ_CORPUS "/tokenizer_json/words.json",
                            folder.path() / "tokenizer.json");
    return true;
  }();
  static_cast<void>(prepared);
  folder.write(name, fuzz::text_of(data, size));
  fuzz::only_errors([] {
    const auto tokenizer = load_tokenizer(folder.path());
    for (const char* text : {"", " Hello  w\xC3\xB6rld, it's 12345!\n\n",
                             "<s>\xE4\xBD\xA0\xE5\xA5\xBD</s> \xF0\x9F\x91\x8D",
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
      fuzz::only_errors([&] {
        const Encoding encoding = tokenizer->encode_with_specials(text);
        fuzz::promise(encoding.ids.size() == encoding.offsets.size(), "every token has a place");
        for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
          fuzz::promise(encoding.ids[i] >= 0 && encoding.ids[i] < tokenizer->vocab_size(),
                        "every id is in the vocabulary");
          const ByteSpan span = encoding.offsets[i];
          fuzz::promise(span.begin <= span.end && span.end <= std::string_view(text).size(),
                        "every place is in the text");
        }
        tokenizer->decode(encoding.ids, false);
        tokenizer->decode(encoding.ids, true);
      });
    }
    for (std::int32_t id = 0; id < std::min(tokenizer->vocab_size(), 300); ++id)
      fuzz::only_errors([&] { tokenizer->decode(std::span(&id, 1), false); });
  });
  return 0;
}
