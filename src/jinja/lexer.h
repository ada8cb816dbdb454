#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace finetune::jinja {

enum class TokenKind {
  data,
  block_begin,
  block_end,
  print_begin,
  print_end,
  name,
  integer,
  floating,
  text,
  symbol,
  end
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;  ///< a text's value, a name, a symbol such as "**", the digits of a number
  int line = 1;
};

/// Splits a template into tokens, with white space removed as `-`, `+`, trim_blocks and
/// lstrip_blocks say. Comments are gone, raw blocks are data. Throws Error(model) "where:line:
/// ...".
std::vector<Token> tokenize(std::string_view source, const std::string& where);

}  // namespace finetune::jinja
