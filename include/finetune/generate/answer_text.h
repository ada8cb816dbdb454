#pragma once

#include "finetune/text/tokenizer.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace finetune {

/// The text of an answer while it grows: finds stop strings, and gives out what is sure to stay.
class AnswerText {
 public:
  /// A stop string ends the answer where it first begins; none may be empty.
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : tokenizer_(tokenizer), stops_(std::move(stops)) {}

  /// Takes all tokens so far. True when a stop string is complete.
  bool update(std::span<const std::int32_t> ids);
  /// The answer so far, up to the stop string.
  const std::string& text() const { return text_; }
  /// What is new since the last call, without an end that later tokens may change: half a
  /// character, or the beginning of a stop string.
  std::string take();
  /// What is left when the answer is over.
  std::string take_rest();

 private:
  std::size_t sure_length() const;

  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string text_;
  std::size_t taken_ = 0;
};

}  // namespace finetune
