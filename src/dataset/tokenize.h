#pragma once

#include "dataset/row_formats.h"
#include "finetune/dataset/example.h"

#include <optional>
#include <string>

namespace finetune {

/// Tokens of a row and which of them are supervised: those that hold a byte of an answer or of the
/// text that ends its turn; for plain text, and with `train_on_prompt`, all. The first never is.
/// Throws Error(data) "found; expected" for a conversation the template refuses.
Example tokenize_row(const RowContent& content, const Tokenizer& tokenizer,
                     const ChatTemplate& chat_template, bool train_on_prompt);

/// Keeps the first `max_length` tokens.
void truncate(Example& example, std::int64_t max_length);

/// The row up to its last answer, and that answer.
RowText row_text(const RowContent& content, const Tokenizer& tokenizer,
                 const ChatTemplate& chat_template);

}  // namespace finetune
