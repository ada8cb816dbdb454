#pragma once

#include "finetune/text/tokenizer.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace finetune {

/// A regular expression over UTF-8 (PCRE2, just-in-time compiled), in the syntax and with the
/// meaning that the tokenizers' files are written for (Oniguruma's Ruby syntax; see
/// regex_syntax.h).
class Regex {
 public:
  /// Throws Error(model) with `where` when the pattern does not compile.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// Does the library know the property of "\\p{Name}"? Versions differ in the scripts they know.
  static bool is_property(const std::string& property);

  /// Calls `found` for every match from left to right, not overlapping; an empty match is reported
  /// unless it lies at the end of the match before it. Safe from several threads. Throws
  /// Error(data) when the matcher runs out of its limits.
  void for_each(std::string_view text, const std::function<void(ByteSpan)>& found) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace finetune
