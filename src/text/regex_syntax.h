#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace finetune {

/// A regular expression written for Oniguruma's Ruby syntax over UTF-8, which tokenizer.json files
/// use, as PCRE2 spells the same matches: `\s`, `\w`, `\b`, `\h`, `\v` and properties have other
/// meanings there, `(?m)` is `(?s)`, sets nest and intersect, and a counted repeat followed by `+`
/// is a repeat of a repeat. `is_known` tells whether PCRE2 knows a property by a name. What neither
/// syntax has is left for PCRE2 to refuse.
std::string pcre2_syntax(std::string_view pattern,
                         const std::function<bool(const std::string&)>& is_known);

}  // namespace finetune
