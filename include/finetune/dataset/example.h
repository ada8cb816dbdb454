#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace finetune {

/// Where a row came from, for messages: `files[file]:line`.
struct RowOrigin {
  std::int32_t file = 0;  ///< index into Dataset::files
  std::int64_t line =
      0;  ///< counted from 1, blank lines included; the element number in a JSON array
};

/// One tokenized row. Token t is supervised when the model is trained to predict it from the tokens
/// before it; the first token never is.
struct Example {
  std::vector<std::int32_t> input_ids;
  std::vector<std::uint8_t> supervised;  ///< same length as input_ids
  std::int64_t supervised_tokens = 0;
  RowOrigin origin;
};

/// What evaluation prints and generation is compared with: the row up to its last answer, and that
/// answer.
struct RowText {
  std::string prompt;       ///< rendered as ChatTemplate::render_prompt; "" for plain text rows
  std::string reference;    ///< the last answer without the end-of-turn token; the text itself for
                            ///< plain text rows
  std::string source = {};  ///< the row's own `source`; "" where it has none
  std::vector<std::string> tags = {};  ///< the row's `tags`, a text or a list of texts
  std::string format_check = {};  ///< the row's own: a regular expression, or a JSON schema as text
};

/// A tokenized data set.
struct Dataset {
  std::vector<std::string> files;  ///< paths as given in the configuration
  std::vector<Example> examples;
  /// Examples that make a row and stay together: 1, or 2 where the chosen answer comes before the
  /// rejected one.
  std::int64_t examples_per_row = 1;
  std::vector<RowText> texts;  ///< one for each example when asked for (keep_texts), else empty
  std::vector<std::uint8_t> labels;  ///< of each row 1 where its answer is desirable; else empty
  std::vector<double> margins;       ///< of each pair its `margin`; empty where no row has one
  std::string content_hash;          ///< of the files' bytes and everything that shapes the tokens

  /// What the reader should know: counted, never silent.
  struct Summary {
    std::int64_t rows = 0, dropped = 0, truncated = 0;
    std::int64_t tokens = 0, supervised_tokens = 0, longest = 0;
  } summary;

  std::int64_t rows() const {
    return static_cast<std::int64_t>(examples.size()) / examples_per_row;
  }
  /// "data/train.jsonl:12"
  std::string where(const Example& example) const;
};

}  // namespace finetune
