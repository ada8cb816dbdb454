#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The terms of a domain. A term is found whatever its case; its ends must be the ends of words,
/// but for scripts that write no spaces.
class Glossary {
 public:
  /// UTF-8, a term a line; blank lines and lines that begin with '#' do not count. Throws
  /// Error(data) for a file that cannot be read or has no term.
  explicit Glossary(const std::string& path);

  /// Of the terms that the reference has, the share that the answer has too; nothing where the
  /// reference has none.
  std::optional<double> recall(std::string_view answer, std::string_view reference) const;

 private:
  std::vector<std::u32string> terms_;  ///< in lower case, each once
};

}  // namespace finetune
