#include "finetune/generate/answer_text.h"

#include <algorithm>

namespace finetune {

bool AnswerText::update(std::span<const std::int32_t> ids) {
  text_ = tokenizer_.decode(ids, /*skip_special_tokens=*/true);
  std::size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, text_.find(stop));
  if (end == std::string::npos) return false;
  text_.resize(end);
  return true;
}

std::size_t AnswerText::sure_length() const {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // bytes whose others are to come
  std::string_view sure = text_;
  while (sure.ends_with(kReplacement)) sure.remove_suffix(kReplacement.size());
  std::size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size(), sure.size()); n > longest; --n) {
      if (sure.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return sure.size() - longest;
}

std::string AnswerText::take() {
  const std::size_t sure = sure_length();
  if (sure <= taken_) return "";
  std::string piece = text_.substr(taken_, sure - taken_);
  taken_ = sure;
  return piece;
}

std::string AnswerText::take_rest() {
  if (text_.size() <= taken_) return "";
  std::string piece = text_.substr(taken_);
  taken_ = text_.size();
  return piece;
}

}  // namespace finetune
