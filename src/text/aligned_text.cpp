#include "text/aligned_text.h"

#include "finetune/base/error.h"
#include "text/utf8.h"

#include <algorithm>
#include <limits>

namespace finetune {

namespace {

// No real tokenizer comes near: three bytes for one at byte level, 18 characters for one under
// NFKC.
constexpr std::size_t kLargestGrowth = 64, kSmallText = std::size_t{1} << 20;

}  // namespace

AlignedText::AlignedText(std::string_view text, std::size_t base)
    : view_(text),
      base_(base),
      limit_(text.size() * kLargestGrowth + kSmallText),
      identity_(true) {}

ByteSpan AlignedText::whole_characters(std::size_t begin, std::size_t end) const {
  while (begin > 0 && is_continuation(view_[begin])) --begin;
  while (end < view_.size() && is_continuation(view_[end])) ++end;
  return {base_ + begin, base_ + end};
}

AlignedText AlignedText::rewritten() const {
  AlignedText result;
  result.limit_ = limit_;
  return result;
}

AlignedText AlignedText::slice(std::size_t begin, std::size_t end) const {
  AlignedText result;
  result.limit_ = limit_;
  if (identity_) {
    result.identity_ = true;
    result.view_ = view_.substr(begin, end - begin);
    result.base_ = base_ + begin;
  } else {
    result.append_from(*this, begin, end);
  }
  return result;
}

void AlignedText::append(std::string_view text, ByteSpan origin) {
  FT_CHECK(!identity_, "an unchanged text cannot be appended to");
  if (origin.end > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorKind::data, "a text of more than 4 GiB cannot be tokenized; split the row");
  }
  if (text_.size() + text.size() > limit_) {
    fail(ErrorKind::model,
         "the tokenizer's stages make a text more than {} times as long; its file is damaged",
         kLargestGrowth);
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
    const std::size_t size = std::min(code_point_at(other.view_, begin).size, end - begin);
    append(other.view_.substr(begin, size), other.original(begin, begin + size));
    begin += size;
  }
}

void AlignedText::reserve(std::size_t bytes) {
  text_.reserve(std::min(bytes, limit_));
  spans_.reserve(std::min(bytes, limit_));
}

}  // namespace finetune
