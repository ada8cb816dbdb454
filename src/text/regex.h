#pragma once

#include "finetune/text/tokenizer.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace finetune {

/// A regular expression over UTF-8 with Unicode classes (PCRE2, just-in-time compiled). The tokenizers that
/// this reads were written for Oniguruma; the two agree on the syntax they use.
class Regex {
 public:
  /// Throws Error(model) with `where` when the pattern does not compile.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// Calls `found` for every match that is not empty, from left to right, not overlapping. Safe from several
  /// threads. Throws Error(data) when the matcher runs out of its limits.
  void for_each(std::string_view text, const std::function<void(ByteSpan)>& found) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace finetune
