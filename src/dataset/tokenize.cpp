#include "dataset/tokenize.h"

#include <algorithm>

namespace finetune {

namespace {

/// 1 for each token that overlaps a span. Tokens and spans ascend, so one pass over both is enough.
std::vector<std::uint8_t> overlapping(const std::vector<ByteSpan>& tokens,
                                      const std::vector<ByteSpan>& spans) {
  std::vector<std::uint8_t> marks(tokens.size(), 0);
  std::size_t next = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const ByteSpan token = tokens[t];
    if (token.begin == token.end) continue;
    while (next < spans.size() && spans[next].end <= token.begin) ++next;
    marks[t] = next < spans.size() && spans[next].begin < token.end ? 1 : 0;
  }
  return marks;
}

void count_supervised(Example& example) {
  if (!example.supervised.empty()) example.supervised.front() = 0;
  example.supervised_tokens = std::count(example.supervised.begin(), example.supervised.end(), 1);
}

Example tokenize_text(const std::string& text, const Tokenizer& tokenizer) {
  Example example;
  RenderedText rendered;
  rendered.text = text;
  example.input_ids = encode_rendered(tokenizer, rendered).ids;
  const auto eos = tokenizer.specials().eos_id;
  if (eos && (example.input_ids.empty() || example.input_ids.back() != *eos))
    example.input_ids.push_back(*eos);
  example.supervised.assign(example.input_ids.size(), 1);
  count_supervised(example);
  return example;
}

}  // namespace

Example tokenize_row(const RowContent& content, const Tokenizer& tokenizer,
                     const ChatTemplate& chat_template, bool train_on_prompt) {
  if (content.text) return tokenize_text(*content.text, tokenizer);
  const RenderedText rendered = chat_template.render(content.messages, content.inputs);
  Encoding encoding = encode_rendered(tokenizer, rendered);
  Example example;
  example.supervised = train_on_prompt ? std::vector<std::uint8_t>(encoding.ids.size(), 1)
                                       : overlapping(encoding.offsets, rendered.supervised);
  example.input_ids = std::move(encoding.ids);
  count_supervised(example);
  return example;
}

void truncate(Example& example, std::int64_t max_length) {
  const auto length = static_cast<std::size_t>(max_length);
  example.input_ids.resize(std::min(length, example.input_ids.size()));
  example.supervised.resize(example.input_ids.size());
  count_supervised(example);
}

RowText row_text(const RowContent& content, const Tokenizer& tokenizer,
                 const ChatTemplate& chat_template) {
  if (content.text) return {.prompt = "", .reference = *content.text};
  std::vector<Message> messages = content.messages;
  std::string reference = std::move(messages.back().content);
  messages.pop_back();
  // The template writes the EOS token itself where the answer brings it along.
  const std::string& eos = tokenizer.specials().eos_token;
  if (!eos.empty() && reference.ends_with(eos)) reference.resize(reference.size() - eos.size());
  return {.prompt = chat_template.render_prompt(messages, content.inputs),
          .reference = std::move(reference)};
}

}  // namespace finetune
