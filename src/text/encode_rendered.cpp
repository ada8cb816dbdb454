#include "finetune/text/chat_template.h"

#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

namespace {

/// True when every end became one EOS token (which may have taken white space along).
bool ends_are_tokens(const Encoding& encoding, const std::vector<ByteSpan>& ends, std::int32_t eos_id) {
  std::size_t token = 0;
  for (const ByteSpan end : ends) {
    while (token < encoding.ids.size() && encoding.offsets[token].end < end.end) ++token;
    if (token == encoding.ids.size() || encoding.ids[token] != eos_id) return false;
    if (encoding.offsets[token].begin > end.begin) return false;
  }
  return true;
}

/// The text between the ends encoded part by part, with the EOS id at every end.
Encoding encode_between(const Tokenizer& tokenizer, const RenderedText& rendered, std::int32_t eos_id) {
  Encoding result;
  std::size_t begin = 0;
  const auto add = [&](std::size_t end) {
    const Encoding part = tokenizer.encode(std::string_view(rendered.text).substr(begin, end - begin));
    result.ids.insert(result.ids.end(), part.ids.begin(), part.ids.end());
    for (const ByteSpan span : part.offsets) result.offsets.push_back({span.begin + begin, span.end + begin});
  };
  for (const ByteSpan end : rendered.ends) {
    add(end.begin);
    result.ids.push_back(eos_id);
    result.offsets.push_back(end);
    begin = end.end;
  }
  add(rendered.text.size());
  return result;
}

}  // namespace

Encoding encode_rendered(const Tokenizer& tokenizer, const RenderedText& rendered) {
  const Tokenizer::Specials& specials = tokenizer.specials();
  Encoding encoding = tokenizer.encode(rendered.text);
  if (!rendered.ends.empty()) {
    FT_CHECK(specials.eos_id.has_value(), "a rendered text has ends, but the tokenizer has no EOS");
    if (!ends_are_tokens(encoding, rendered.ends, *specials.eos_id)) {
      encoding = encode_between(tokenizer, rendered, *specials.eos_id);
    }
  }
  const bool has_bos = rendered.has_bos || (specials.bos_id && !encoding.ids.empty() &&
                                            encoding.ids.front() == *specials.bos_id);
  if (!has_bos) {
    encoding.ids.insert(encoding.ids.begin(), specials.prefix_ids.begin(), specials.prefix_ids.end());
    encoding.offsets.insert(encoding.offsets.begin(), specials.prefix_ids.size(), ByteSpan{0, 0});
  }
  return encoding;
}

}  // namespace finetune
