#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/parser.h"

#include <algorithm>

namespace finetune::jinja {

namespace {

constexpr int kMaxDepth = 200;  // blocks and brackets inside each other

}  // namespace

Parser::Parser(std::vector<Token> tokens, const std::string& where)
    : tokens_(std::move(tokens)), where_(where) {}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (parser.depth_ >= kMaxDepth)
    parser.fail_here("the template nests more than {} deep", kMaxDepth);
  ++parser.depth_;
}

void Parser::fail_at(int line, const std::string& message) const {
  fail(ErrorKind::model, "{}:{}: {}", where_, line, message);
}

const Token& Parser::peek(std::size_t ahead) const {
  return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
}

Token Parser::next() {
  const Token& token = peek();
  if (position_ < tokens_.size()) ++position_;
  return token;
}

bool Parser::is_symbol(std::string_view symbol) const {
  return peek().kind == TokenKind::symbol && peek().text == symbol;
}

bool Parser::is_word(std::string_view word) const {
  return peek().kind == TokenKind::name && peek().text == word;
}

bool Parser::skip_symbol(std::string_view symbol) {
  if (!is_symbol(symbol)) return false;
  next();
  return true;
}

bool Parser::skip_word(std::string_view word) {
  if (!is_word(word)) return false;
  next();
  return true;
}

void Parser::expect_symbol(std::string_view symbol) {
  if (!skip_symbol(symbol)) fail_here("unexpected {}; expected '{}'", describe(peek()), symbol);
}

void Parser::expect_word(std::string_view word) {
  if (!skip_word(word)) fail_here("unexpected {}; expected '{}'", describe(peek()), word);
}

std::string Parser::expect_name(std::string_view what) {
  if (peek().kind != TokenKind::name)
    fail_here("unexpected {}; expected the name of {}", describe(peek()), what);
  return next().text;
}

void Parser::expect_block_end() {
  if (peek().kind != TokenKind::block_end)
    fail_here("unexpected {}; expected '%}}'", describe(peek()));
  next();
}

std::string Parser::describe(const Token& token) const {
  switch (token.kind) {
    case TokenKind::data:
      return "text";
    case TokenKind::block_begin:
      return "'{%'";
    case TokenKind::block_end:
      return "'%}'";
    case TokenKind::print_begin:
      return "'{{'";
    case TokenKind::print_end:
      return "'}}'";
    case TokenKind::text:
      return "a string";
    case TokenKind::end:
      return "end of the template";
    default:
      return "'" + token.text + "'";
  }
}

Block Parser::parse_template() {
  std::unique_ptr<Block> block = parse_block({}, "");
  return std::move(*block);
}

/// Statements up to a tag that begins with one of `ends`; the tag's "{%" is taken, its word is not.
std::unique_ptr<Block> Parser::parse_block(const EndWords& ends, std::string_view opened) {
  const Nesting nesting(*this);
  auto block = std::make_unique<Block>();
  while (true) {
    const Token& token = peek();
    Statement statement;
    statement.line = token.line;
    if (token.kind == TokenKind::end) {
      if (ends.empty()) return block;
      fail_here("the template ends inside of {{% {} %}}; expected {{% {} %}}", opened, ends.back());
    } else if (token.kind == TokenKind::data) {
      statement.text = constants_.text(next().text);
      block->statements.push_back(std::move(statement));
    } else if (token.kind == TokenKind::print_begin) {
      next();
      statement.kind = Statement::Kind::print;
      statement.expressions.push_back(parse_tuple(true));
      if (peek().kind != TokenKind::print_end)
        fail_here("unexpected {}; expected '}}}}'", describe(peek()));
      next();
      block->statements.push_back(std::move(statement));
    } else {
      next();
      if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return is_word(end); }))
        return block;
      parse_statement(*block);
    }
  }
}

/// A block with a scope of its own, where an unknown filter is told at once.
std::unique_ptr<Block> Parser::parse_scoped_block(const EndWords& ends, std::string_view opened) {
  const bool outer_soft = std::exchange(soft_, false);
  expect_block_end();
  auto block = parse_block(ends, opened);
  soft_ = outer_soft;
  return block;
}

void Parser::parse_statement(Block& block) {
  Statement statement;
  statement.line = peek().line;
  const std::string word = expect_name("a tag");
  if (word == "if") {
    parse_if(statement);
  } else if (word == "for") {
    parse_for(statement);
  } else if (word == "set") {
    parse_set(statement);
  } else if (word == "macro") {
    parse_macro(statement);
  } else if (word == "call") {
    parse_call_block(statement);
  } else if (word == "with") {
    parse_with(statement);
  } else if (word == "filter") {
    statement.kind = Statement::Kind::filter_block;
    statement.expressions.push_back(parse_filters_of_block());
    statement.blocks.push_back(parse_scoped_block({"endfilter"}, word));
    next();
  } else if (word == "generation") {
    statement.kind = Statement::Kind::generation;
    has_generation_ = true;
    statement.blocks.push_back(parse_scoped_block({"endgeneration"}, word));
    next();
  } else if (word == "print") {
    statement.kind = Statement::Kind::print;
    do {
      statement.expressions.push_back(parse_expression());
    } while (skip_symbol(","));
  } else if (word == "break" || word == "continue") {
    if (loops_ == 0) fail_at(statement.line, "'" + word + "' outside of a loop");
    statement.kind = word == "break" ? Statement::Kind::break_loop : Statement::Kind::continue_loop;
  } else {
    static constexpr std::string_view known[] = {
        "block", "extends", "include", "import", "from", "autoescape", "do", "trans", "debug"};
    const bool is_known = std::find(std::begin(known), std::end(known), word) != std::end(known);
    fail_at(statement.line,
            is_known ? "{% " + word + " %} is not supported in chat templates"
                     : "unexpected '" + word + "'; expected a tag such as if, for or set");
  }
  expect_block_end();
  block.statements.push_back(std::move(statement));
}

void Parser::parse_if(Statement& statement) {
  const bool outer_soft = std::exchange(soft_, true);
  statement.kind = Statement::Kind::branch;
  while (true) {
    statement.expressions.push_back(parse_tuple(false));
    skip_symbol(":");
    expect_block_end();
    statement.blocks.push_back(parse_block({"elif", "else", "endif"}, "if"));
    if (!skip_word("elif")) break;
  }
  if (skip_word("else")) {
    expect_block_end();
    statement.blocks.push_back(parse_block({"endif"}, "if"));
  }
  expect_word("endif");
  soft_ = outer_soft;
}

void Parser::parse_for(Statement& statement) {
  const bool outer_soft = std::exchange(soft_, false);
  statement.kind = Statement::Kind::loop;
  statement.targets.push_back(parse_target(false));
  expect_word("in");
  statement.expressions.push_back(parse_tuple(false));
  statement.expressions.push_back(skip_word("if") ? parse_expression() : nullptr);
  if (is_word("recursive"))
    fail_here("recursive loops are not supported; write a macro that calls itself");
  skip_symbol(":");
  expect_block_end();
  ++loops_;
  statement.blocks.push_back(parse_block({"else", "endfor"}, "for"));
  --loops_;
  if (skip_word("else")) {
    expect_block_end();
    statement.blocks.push_back(parse_block({"endfor"}, "for"));
  }
  expect_word("endfor");
  soft_ = outer_soft;
}

void Parser::parse_set(Statement& statement) {
  statement.targets.push_back(parse_target(true));
  if (skip_symbol("=")) {
    statement.kind = Statement::Kind::set;
    statement.expressions.push_back(parse_tuple(true));
    return;
  }
  if (statement.targets.front().is_tuple)
    fail_here("unexpected {}; expected '='", describe(peek()));
  statement.kind = Statement::Kind::set_block;
  statement.expressions.push_back(is_symbol("|") ? parse_filters(nullptr) : nullptr);
  statement.blocks.push_back(parse_scoped_block({"endset"}, "set"));
  next();
}

ExpressionPtr Parser::parse_filters_of_block() { return parse_filters(parse_filter(nullptr)); }

void Parser::parse_macro(Statement& statement) {
  statement.kind = Statement::Kind::macro;
  statement.macro = std::make_unique<MacroDefinition>();
  MacroDefinition& macro = *statement.macro;
  macro.line = statement.line;
  macro.name = parse_one_target(false).name;
  parse_signature(macro);
  parse_macro_body(macro, "endmacro");
}

void Parser::parse_call_block(Statement& statement) {
  statement.kind = Statement::Kind::call_block;
  statement.macro = std::make_unique<MacroDefinition>();
  statement.macro->name = "caller";
  statement.macro->line = statement.line;
  if (is_symbol("(")) parse_signature(*statement.macro);
  statement.expressions.push_back(parse_expression());
  if (statement.expressions.back()->kind != Expression::Kind::call)
    fail_here("expected a call such as {{% call macro() %}}");
  parse_macro_body(*statement.macro, "endcall");
}

void Parser::parse_signature(MacroDefinition& macro) {
  expect_symbol("(");
  while (!is_symbol(")")) {
    if (!macro.parameters.empty()) expect_symbol(",");
    macro.parameters.push_back(parse_one_target(false).name);
    if (skip_symbol("=")) {
      macro.defaults.push_back(parse_expression());
    } else if (!macro.defaults.empty()) {
      fail_here("a parameter without a default follows one with a default");
    }
  }
  expect_symbol(")");
}

void Parser::parse_macro_body(MacroDefinition& macro, std::string_view end) {
  const int outer_loops = std::exchange(loops_, 0);
  macros_.push_back(&macro);
  macro.body = parse_scoped_block({end}, macro.name == "caller" ? "call" : "macro");
  macros_.pop_back();
  loops_ = outer_loops;
  next();
}

void Parser::parse_with(Statement& statement) {
  statement.kind = Statement::Kind::with;
  while (peek().kind != TokenKind::block_end) {
    if (!statement.targets.empty()) expect_symbol(",");
    statement.targets.push_back(parse_one_target(false));
    expect_symbol("=");
    statement.expressions.push_back(parse_expression());
  }
  statement.blocks.push_back(parse_scoped_block({"endwith"}, "with"));
  next();
}

Target Parser::parse_target(bool with_namespace) {
  const Nesting nesting(*this);
  const auto at_end = [&] {
    return is_word("in") || is_symbol("=") || is_symbol(")") || peek().kind == TokenKind::block_end;
  };
  Target first = parse_one_target(with_namespace);
  if (!is_symbol(",")) return first;
  Target tuple;
  tuple.is_tuple = true;
  tuple.parts.push_back(std::move(first));
  while (skip_symbol(",")) {
    if (at_end()) break;
    tuple.parts.push_back(parse_one_target(with_namespace));
  }
  return tuple;
}

Target Parser::parse_one_target(bool with_namespace) {
  if (skip_symbol("(")) {
    Target target = parse_target(with_namespace);
    expect_symbol(")");
    return target;
  }
  Target target;
  target.name = expect_name("a variable");
  static constexpr std::string_view reserved[] = {"true", "True", "false", "False", "none", "None"};
  if (std::find(std::begin(reserved), std::end(reserved), target.name) != std::end(reserved)) {
    fail_here("cannot assign to '{}'", target.name);
  }
  if (with_namespace && skip_symbol(".")) target.attribute = expect_name("an attribute");
  return target;
}

}  // namespace finetune::jinja
