#include "text/aligned_text.h"

#include "finetune/base/error.h"
#include "text/utf8.h"

#include <limits>

namespace finetune {

ByteSpan AlignedText::original(std::size_t begin, std::size_t end) const {
  if (!identity_) return {spans_[begin].begin, spans_[end - 1].end};
  while (begin > 0 && is_continuation(text_[begin])) --begin;
  while (end < text_.size() && is_continuation(text_[end])) ++end;
  return {base_ + begin, base_ + end};
}

void AlignedText::append(std::string_view text, ByteSpan origin) {
  FT_CHECK(!identity_, "an unchanged text cannot be appended to");
  if (origin.end > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorKind::data, "a text of more than 4 GiB cannot be tokenized; split the row");
  }
  text_.append(text);
  spans_.insert(spans_.end(), text.size(),
                {static_cast<std::uint32_t>(origin.begin), static_cast<std::uint32_t>(origin.end)});
}

void AlignedText::append_from(const AlignedText& other, std::size_t begin, std::size_t end) {
  if (!other.identity_) {
    text_.append(other.text_, begin, end - begin);
    spans_.insert(spans_.end(), other.spans_.begin() + static_cast<std::ptrdiff_t>(begin),
                  other.spans_.begin() + static_cast<std::ptrdiff_t>(end));
    return;
  }
  while (begin < end) {
    const std::size_t size = code_point_at(other.text_, begin).size;
    append(std::string_view(other.text_).substr(begin, size), other.original(begin, begin + size));
    begin += size;
  }
}

void AlignedText::reserve(std::size_t bytes) {
  text_.reserve(bytes);
  spans_.reserve(bytes);
}

}  // namespace finetune
