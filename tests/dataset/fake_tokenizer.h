#pragma once

#include "finetune/text/tokenizer.h"

#include <algorithm>

namespace finetune {

/// Ids: 0 "<s>", 1 "</s>", then runs of `width` bytes: with width 1 id 2 + byte. Special texts are
/// recognised.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::size_t width = 1, bool add_bos = true) : width_(width) {
    specials_.bos_id = 0;
    specials_.eos_id = 1;
    specials_.bos_token = "<s>";
    specials_.eos_token = "</s>";
    specials_.add_bos = add_bos;
    if (add_bos) specials_.prefix_ids = {0};
  }

  Encoding encode(std::string_view text) const override {
    Encoding encoding;
    for (std::size_t at = 0; at < text.size();) {
      const bool bos = text.substr(at).starts_with("<s>");
      const bool eos = text.substr(at).starts_with("</s>");
      std::size_t end = at + (bos ? 3 : eos ? 4 : width_);
      if (!bos && !eos) {
        const std::size_t special = text.substr(at, width_ + 3).find("</s>");
        end = std::min({end, special == text.npos ? text.npos : at + special, text.size()});
      }
      std::int32_t id = bos ? 0 : eos ? 1 : 2;
      if (!bos && !eos) {
        for (std::size_t i = at; i < end; ++i)
          id += static_cast<unsigned char>(text[i]) << (8 * (i - at));
      }
      encoding.ids.push_back(id);
      encoding.offsets.push_back({at, end});
      at = end;
    }
    return encoding;
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 2) {
        if (!skip_special_tokens) text += id == 0 ? "<s>" : "</s>";
        continue;
      }
      for (std::int32_t rest = id - 2; rest > 0; rest >>= 8)
        text.push_back(static_cast<char>(rest & 0xFF));
    }
    return text;
  }

  std::int32_t vocab_size() const override { return 2 + (1 << (8 * width_)); }
  std::optional<std::int32_t> token_id(std::string_view) const override { return std::nullopt; }

 private:
  std::size_t width_;
};

}  // namespace finetune
