#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace finetune {

/// How the text of a FormatCheck is to be read.
enum class FormatText {
  any,          ///< a schema (it begins with a brace), the path of one ending in `.json`, or a
                ///< regular expression
  schema_file,  ///< the path of a file that holds a JSON schema
  pattern,      ///< a regular expression
};

/// What an answer must be valid against: a JSON schema (drafts up to 7) or a regular expression
/// (PCRE2) that matches it from end to end. White space around the answer does not count.
class FormatCheck {
 public:
  /// `where` is for messages ("rows.jsonl:3: format_check"). Throws Error(config) for a text that
  /// is not what `kind` says.
  FormatCheck(const std::string& text, const std::string& where, FormatText kind = FormatText::any);
  ~FormatCheck();
  FormatCheck(FormatCheck&&) noexcept;

  bool accepts(std::string_view answer) const;

 private:
  struct Schema;
  struct Pattern;
  std::unique_ptr<Schema> schema_;
  std::unique_ptr<Pattern> pattern_;
  std::string where_;
};

/// True for the text of one JSON object or array.
bool is_json_container(std::string_view text);

/// What a text has of a Markdown element.
enum class Markdown { none, broken, valid };

/// Tables as GitHub reads them: a header row, a row of dashes with as many cells, and no row with
/// more. `none` without any row of dashes between bars.
Markdown markdown_table(std::string_view text);
/// Fenced code blocks: `valid` when each one that is opened is closed.
Markdown code_blocks(std::string_view text);

}  // namespace finetune
