#pragma once

#include "finetune/text/tokenizer.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A text on its way through normalizers and pre-tokenizers, where every byte knows which bytes of
/// the caller's text it came from. While nothing changed it, it is a view of the caller's text.
class AlignedText {
 public:
  /// `text` unchanged, which stands at `base` in the caller's text and outlives this.
  AlignedText(std::string_view text, std::size_t base);

  std::string_view text() const { return identity_ ? view_ : std::string_view(text_); }
  std::size_t size() const { return text().size(); }
  bool empty() const { return text().empty(); }

  /// The bytes of the caller's text that [begin, end) came from, rounded out to whole characters;
  /// empty for text that a stage put in. `begin` < `end`.
  ByteSpan original(std::size_t begin, std::size_t end) const {
    if (!identity_) return {spans_[begin].begin, spans_[end - 1].end};
    return whole_characters(begin, end);
  }

  /// An empty text to be appended to, that takes the place of this one.
  AlignedText rewritten() const;
  /// [begin, end) with its alignment.
  AlignedText slice(std::size_t begin, std::size_t end) const;
  /// Appends text that came from `origin` as a whole: every byte of it is aligned to all of
  /// `origin`. Throws Error(model) when the stages of a tokenizer make a text grow without measure.
  void append(std::string_view text, ByteSpan origin);
  /// Appends [begin, end) of another text with its alignment.
  void append_from(const AlignedText& other, std::size_t begin, std::size_t end);
  void reserve(std::size_t bytes);

 private:
  AlignedText() = default;
  ByteSpan whole_characters(std::size_t begin, std::size_t end) const;

  struct Span {
    std::uint32_t begin, end;
  };
  std::string_view view_;
  std::string text_;
  std::size_t base_ = 0, limit_ = 0;
  bool identity_ =
      false;  ///< the text is view_, and byte i came from base_ + i; text_ and spans_ are not used
  std::vector<Span> spans_;  ///< one for each byte
};

/// A text and the words in it that the model encodes one by one (half-open ranges, ascending).
struct PreTokenized {
  AlignedText text;
  std::vector<ByteSpan> words;
};

}  // namespace finetune
