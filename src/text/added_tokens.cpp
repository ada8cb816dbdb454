#include "text/added_tokens.h"

#include "text/utf8.h"

#include <algorithm>

namespace finetune {

namespace {

std::size_t previous_character(std::string_view text, std::size_t position) {
  do {
    --position;
  } while (position > 0 && is_continuation(text[position]));
  return position;
}

bool word_before(std::string_view text, std::size_t position) {
  return position > 0 && is_word(code_point_at(text, previous_character(text, position)).value);
}

bool word_after(std::string_view text, std::size_t position) {
  return position < text.size() && is_word(code_point_at(text, position).value);
}

}  // namespace

void AddedTokenMatcher::add(const std::string& pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  const std::uint32_t known = trie_.walk(pattern);
  if (known != PrefixTrie::kNone && trie_.number(known) >= 0) return;
  trie_.put(pattern, static_cast<std::int32_t>(tokens_.size()));
  begins_[static_cast<unsigned char>(pattern[0])] = true;
  tokens_.push_back(token);
}

std::pair<std::int32_t, std::size_t> AddedTokenMatcher::longest_at(std::string_view text,
                                                                   std::size_t position) const {
  std::pair<std::int32_t, std::size_t> best = {-1, position};
  std::uint32_t node = PrefixTrie::kRoot;
  while (position < text.size()) {
    node = trie_.step(node, text[position++]);
    if (node == PrefixTrie::kNone) break;
    if (trie_.number(node) >= 0) best = {trie_.number(node), position};
  }
  return best;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<Part> parts;
  std::size_t done = 0;
  std::size_t position = tokens_.empty() ? text.size() : 0;
  while (position < text.size()) {
    if (!begins_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    const auto [index, match_end] = longest_at(text, position);
    if (index < 0) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    std::size_t begin = position, end = match_end;
    position = match_end;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    while (token.lstrip && begin > done) {
      const std::size_t before = previous_character(text, begin);
      if (!is_space(code_point_at(text, before).value)) break;
      begin = before;
    }
    while (token.rstrip && end < text.size() && is_space(code_point_at(text, end).value)) {
      end += code_point_at(text, end).size;
    }
    if (token.lstrip) begin = std::max(begin, done);
    if (begin >= end) continue;
    if (begin > done) parts.push_back({-1, done, begin});
    // A token in the white space that the one before took along is a token all the same, as in
    // `tokenizers`.
    parts.push_back({token.id, begin, end});
    done = end;
  }
  if (done < text.size()) parts.push_back({-1, done, text.size()});
  return parts;
}

}  // namespace finetune
