#include "finetune/text/chat_template.h"

#include "dataset/fake_tokenizer.h"
#include "fuzz/fuzz.h"

namespace {

using namespace finetune;

void check_spans(const RenderedText& rendered) {
  std::size_t end = 0;
  for (const ByteSpan span : rendered.supervised) {
    fuzz::promise(span.begin >= end && span.begin < span.end, "what is learned ascends");
    end = span.end;
  }
  fuzz::promise(end <= rendered.text.size(), "what is learned is in the text");
}

}  // namespace

/// A chat template of a model, and which bytes of a conversation would be learned.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  static const FakeTokenizer tokenizer;
  static const std::vector<Message> messages = {
      {.role = "user", .content = "say no"},
      {.role = "assistant", .content = "no"},
      {.role = "user", .content = "and \xC3\xA4?"},
      {.role = "assistant", .content = "It is no, indeed.</s>"}};
  const auto path = folder.write("t.jinja", fuzz::text_of(data, size));
  fuzz::only_errors([&] {
    const auto chat = load_chat_template(folder.path(), path.string(), tokenizer);
    fuzz::only_errors([&] {
      const RenderedText rendered = chat->render(messages);
      check_spans(rendered);
      encode_rendered(tokenizer, rendered);
    });
    fuzz::only_errors([&] {
      encode_prompt(tokenizer, chat->render_prompt({messages.begin(), messages.begin() + 3}));
    });
  });
  return 0;
}
