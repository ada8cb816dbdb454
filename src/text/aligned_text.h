#pragma once

#include "finetune/text/tokenizer.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A text on its way through normalizers and pre-tokenizers, where every byte knows which bytes of the
/// caller's text it came from.
class AlignedText {
 public:
  AlignedText() = default;
  /// `text` unchanged, which stands at `base` in the caller's text.
  AlignedText(std::string_view text, std::size_t base) : text_(text), base_(base), identity_(true) {}

  const std::string& text() const { return text_; }
  bool empty() const { return text_.empty(); }

  /// The bytes of the caller's text that [begin, end) came from, rounded out to whole characters; empty for
  /// text that a stage put in. `begin` < `end`.
  ByteSpan original(std::size_t begin, std::size_t end) const;

  /// Appends text that came from `origin` as a whole: every byte of it is aligned to all of `origin`.
  void append(std::string_view text, ByteSpan origin);
  /// Appends [begin, end) of another text with its alignment.
  void append_from(const AlignedText& other, std::size_t begin, std::size_t end);
  void reserve(std::size_t bytes);

 private:
  struct Span {
    std::uint32_t begin, end;
  };
  std::string text_;
  std::size_t base_ = 0;
  bool identity_ = false;    ///< spans_ is not kept: byte i came from base_ + i
  std::vector<Span> spans_;  ///< one for each byte
};

/// A text and the words in it that the model encodes one by one (half-open ranges, ascending).
struct PreTokenized {
  AlignedText text;
  std::vector<ByteSpan> words;
};

}  // namespace finetune
