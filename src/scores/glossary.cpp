#include "finetune/scores/glossary.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "finetune/scores/text_scores.h"
#include "scores/code_points.h"

#include <algorithm>

namespace finetune {

namespace {

bool joins(char32_t a, char32_t b) {
  return is_alphanumeric(a) && is_alphanumeric(b) && !is_unspaced(a) && !is_unspaced(b);
}

bool has_term(const std::u32string& text, const std::u32string& term) {
  for (std::size_t at = text.find(term); at != text.npos; at = text.find(term, at + 1)) {
    const std::size_t end = at + term.size();
    const bool begins = at == 0 || !joins(text[at - 1], term.front());
    if (begins && (end == text.size() || !joins(term.back(), text[end]))) return true;
  }
  return false;
}

}  // namespace

Glossary::Glossary(const std::string& path) {
  const std::string content = read_file(path, ErrorKind::data);
  if (const std::size_t bad = find_invalid_utf8(content); bad != std::string::npos)
    fail(ErrorKind::data, "{}: byte {} is not UTF-8; expected a term a line", path, bad);
  for (std::string_view rest = content; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
    line = strip(line);
    if (!line.empty() && line.front() != '#') terms_.push_back(lower_case(code_points(line)));
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  std::sort(terms_.begin(), terms_.end());
  terms_.erase(std::unique(terms_.begin(), terms_.end()), terms_.end());
  if (terms_.empty()) fail(ErrorKind::data, "{}: has no term; expected a term a line", path);
}

std::optional<double> Glossary::recall(std::string_view answer, std::string_view reference) const {
  const std::u32string said = lower_case(code_points(answer)),
                       wanted = lower_case(code_points(reference));
  double expected = 0, found = 0;
  for (const std::u32string& term : terms_) {
    if (!has_term(wanted, term)) continue;
    ++expected;
    if (has_term(said, term)) ++found;
  }
  if (expected == 0) return std::nullopt;
  return found / expected;
}

}  // namespace finetune
