#include "finetune/text/chat_template.h"

#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

namespace {

/// True when every special text became its one token (which may have taken white space along).
bool specials_are_tokens(const Encoding& encoding, const std::vector<SpecialText>& specials) {
  std::size_t token = 0;
  for (const auto& [span, id] : specials) {
    while (token < encoding.ids.size() && encoding.offsets[token].end < span.end) ++token;
    if (token == encoding.ids.size() || encoding.ids[token] != id) return false;
    if (encoding.offsets[token].begin > span.begin) return false;
  }
  return true;
}

/// The text between the specials encoded part by part, with the ids of the specials between them.
Encoding encode_between(const Tokenizer& tokenizer, const RenderedText& rendered) {
  Encoding result;
  std::size_t begin = 0;
  const auto add = [&](std::size_t end) {
    const Encoding part =
        tokenizer.encode(std::string_view(rendered.text).substr(begin, end - begin));
    result.ids.insert(result.ids.end(), part.ids.begin(), part.ids.end());
    for (const ByteSpan span : part.offsets)
      result.offsets.push_back({span.begin + begin, span.end + begin});
  };
  for (const auto& [span, id] : rendered.specials) {
    if (span.begin > begin) add(span.begin);
    result.ids.push_back(id);
    result.offsets.push_back(span);
    begin = span.end;
  }
  if (begin < rendered.text.size()) add(rendered.text.size());
  return result;
}

}  // namespace

Encoding encode_rendered(const Tokenizer& tokenizer, const RenderedText& rendered) {
  const Tokenizer::Specials& specials = tokenizer.specials();
  Encoding encoding = tokenizer.encode(rendered.text);
  if (!specials_are_tokens(encoding, rendered.specials))
    encoding = encode_between(tokenizer, rendered);
  const bool has_bos = rendered.has_bos || (specials.bos_id && !encoding.ids.empty() &&
                                            encoding.ids.front() == *specials.bos_id);
  if (!has_bos) {
    encoding.ids.insert(encoding.ids.begin(), specials.prefix_ids.begin(),
                        specials.prefix_ids.end());
    encoding.offsets.insert(encoding.offsets.begin(), specials.prefix_ids.size(), ByteSpan{0, 0});
  }
  return encoding;
}

Encoding encode_prompt(const Tokenizer& tokenizer, const std::string& prompt) {
  const Tokenizer::Specials& specials = tokenizer.specials();
  RenderedText rendered;
  rendered.text = prompt;
  rendered.has_bos =
      specials.bos_id && !specials.bos_token.empty() && prompt.starts_with(specials.bos_token);
  if (rendered.has_bos)
    rendered.specials.push_back({{0, specials.bos_token.size()}, *specials.bos_id});
  return encode_rendered(tokenizer, rendered);
}

}  // namespace finetune
