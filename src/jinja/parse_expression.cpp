#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/parser.h"

#include <array>
#include <charconv>

namespace finetune::jinja {

namespace {

constexpr int kMaxChain = 500;  // a + b + c ... and a.b.c ...

}  // namespace

using Kind_ = Expression::Kind;

ExpressionPtr Parser::make(Expression::Kind kind, std::string name) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = peek().line;
  node->name = std::move(name);
  return node;
}

void Parser::count_chain(int& length) const {
  if (++length > kMaxChain) fail_here("an expression chains more than {} operations", kMaxChain);
}

ExpressionPtr Parser::parse_expression() {
  const Nesting nesting(*this);
  const bool outer_soft = soft_;
  ExpressionPtr node = parse_logic(true);
  int length = 0;
  while (skip_word("if")) {
    count_chain(length);
    soft_ = true;
    ExpressionPtr whole = make(Kind_::conditional);
    whole->operands.push_back(std::move(node));
    whole->operands.push_back(parse_logic(true));
    whole->operands.push_back(skip_word("else") ? parse_expression() : nullptr);
    node = std::move(whole);
    soft_ = outer_soft;
  }
  return node;
}

ExpressionPtr Parser::parse_tuple(bool with_conditional) {
  const auto parse_one = [&] { return with_conditional ? parse_expression() : parse_logic(true); };
  const auto at_end = [&] {
    const TokenKind kind = peek().kind;
    return kind == TokenKind::print_end || kind == TokenKind::block_end || is_symbol(")") ||
           is_word("recursive");
  };
  const Nesting nesting(*this);
  ExpressionPtr first = parse_one();
  if (!is_symbol(",")) return first;
  ExpressionPtr tuple = make(Kind_::tuple);
  tuple->operands.push_back(std::move(first));
  while (skip_symbol(",")) {
    if (at_end()) break;
    tuple->operands.push_back(parse_one());
  }
  return tuple;
}

ExpressionPtr Parser::parse_logic(bool is_or) {
  const auto parse_operand = [&] { return is_or ? parse_logic(false) : parse_not(); };
  ExpressionPtr node = parse_operand();
  int length = 0;
  while (skip_word(is_or ? "or" : "and")) {
    count_chain(length);
    ExpressionPtr whole = make(Kind_::logic, is_or ? "or" : "and");
    whole->operands.push_back(std::move(node));
    whole->operands.push_back(parse_operand());
    node = std::move(whole);
  }
  return node;
}

ExpressionPtr Parser::parse_not() {
  if (!is_word("not")) return parse_compare();
  const Nesting nesting(*this);
  ExpressionPtr node = make(Kind_::negate);
  next();
  node->operands.push_back(parse_not());
  return node;
}

ExpressionPtr Parser::parse_compare() {
  static constexpr std::array<std::string_view, 6> symbols = {"==", "!=", "<", "<=", ">", ">="};
  ExpressionPtr first = parse_binary(0);
  ExpressionPtr node;
  const auto add = [&](std::string symbol) {
    if (!node) {
      node = make(Kind_::compare);
      node->operands.push_back(std::move(first));
    }
    node->symbols.push_back(std::move(symbol));
    node->operands.push_back(parse_binary(0));
  };
  while (true) {
    const Token& token = peek();
    if (token.kind == TokenKind::symbol &&
        std::find(symbols.begin(), symbols.end(), token.text) != symbols.end()) {
      add(next().text);
    } else if (skip_word("in")) {
      add("in");
    } else if (is_word("not") && peek(1).kind == TokenKind::name && peek(1).text == "in") {
      next();
      next();
      add("not in");
    } else {
      return node ? std::move(node) : std::move(first);
    }
  }
}

/// Levels of binding: 0 is + and -, then ~, then 1 is * / // %, 2 is **, all from the left.
ExpressionPtr Parser::parse_binary(int level) {
  const auto parse_operand = [&] {
    return level == 0 ? parse_concat() : level == 1 ? parse_binary(2) : parse_unary(true);
  };
  const auto fits = [&] {
    if (level == 0) return is_symbol("+") || is_symbol("-");
    if (level == 1) return is_symbol("*") || is_symbol("/") || is_symbol("//") || is_symbol("%");
    return is_symbol("**");
  };
  ExpressionPtr node = parse_operand();
  int length = 0;
  while (fits()) {
    count_chain(length);
    ExpressionPtr whole = make(Kind_::binary, next().text);
    whole->operands.push_back(std::move(node));
    whole->operands.push_back(parse_operand());
    node = std::move(whole);
  }
  return node;
}

ExpressionPtr Parser::parse_concat() {
  ExpressionPtr first = parse_binary(1);
  if (!is_symbol("~")) return first;
  ExpressionPtr node = make(Kind_::concat);
  node->operands.push_back(std::move(first));
  while (skip_symbol("~")) node->operands.push_back(parse_binary(1));
  return node;
}

ExpressionPtr Parser::parse_unary(bool with_filter) {
  ExpressionPtr node;
  if (is_symbol("-") || is_symbol("+")) {
    const Nesting nesting(*this);
    node = make(Kind_::unary, next().text);
    node->operands.push_back(parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filters(std::move(node)) : std::move(node);
}

Value Parser::parse_integer(const Token& token) const {
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0' && digits[1] > '9') {
    const char mark = static_cast<char>(digits[1] | 0x20);
    base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
    digits.remove_prefix(2);
  }
  std::int64_t number = 0;
  const auto done = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (done.ec != std::errc() || done.ptr != digits.data() + digits.size()) {
    fail_at(token.line, "'" + token.text + "' is not an integer of at most 64 bits");
  }
  return Value::of_int(number);
}

ExpressionPtr Parser::parse_primary() {
  const Nesting nesting(*this);
  const Token& token = peek();
  if (token.kind == TokenKind::name) return parse_name();
  if (is_symbol("[")) return parse_list();
  if (is_symbol("{")) return parse_dict();
  if (is_symbol("(")) {
    ExpressionPtr empty = make(Kind_::tuple);
    next();
    if (skip_symbol(")")) return empty;
    ExpressionPtr node = parse_tuple(true);
    expect_symbol(")");
    return node;
  }
  ExpressionPtr node = make(Kind_::constant);
  if (token.kind == TokenKind::text) {
    std::string text;
    while (peek().kind == TokenKind::text) text += next().text;
    node->constant = constants_.text(std::move(text));
  } else if (token.kind == TokenKind::integer) {
    node->constant = parse_integer(next());
  } else if (token.kind == TokenKind::floating) {
    node->constant = Value::of_float(std::strtod(next().text.c_str(), nullptr));
  } else {
    fail_here("unexpected {}; expected an expression", describe(token));
  }
  return node;
}

ExpressionPtr Parser::parse_name() {
  ExpressionPtr node = make(Kind_::name, peek().text);
  next();
  const std::string& name = node->name;
  for (MacroDefinition* macro : macros_) {
    macro->uses_varargs |= name == "varargs";
    macro->uses_kwargs |= name == "kwargs";
    macro->uses_caller |= name == "caller";
  }
  const bool is_bool = name == "true" || name == "True" || name == "false" || name == "False";
  if (!is_bool && name != "none" && name != "None") return node;
  node->kind = Kind_::constant;
  node->constant = is_bool ? Value::of_bool(name == "true" || name == "True") : Value::none();
  return node;
}

ExpressionPtr Parser::parse_list() {
  ExpressionPtr node = make(Kind_::list);
  expect_symbol("[");
  while (!is_symbol("]")) {
    if (!node->operands.empty()) expect_symbol(",");
    if (is_symbol("]")) break;
    node->operands.push_back(parse_expression());
  }
  expect_symbol("]");
  return node;
}

ExpressionPtr Parser::parse_dict() {
  ExpressionPtr node = make(Kind_::dict);
  expect_symbol("{");
  while (!is_symbol("}")) {
    if (!node->operands.empty()) expect_symbol(",");
    if (is_symbol("}")) break;
    node->operands.push_back(parse_expression());
    expect_symbol(":");
    node->operands.push_back(parse_expression());
  }
  expect_symbol("}");
  return node;
}

ExpressionPtr Parser::parse_postfix(ExpressionPtr node) {
  int length = 0;
  while (true) {
    if (is_symbol(".")) {
      node = parse_attribute(std::move(node));
    } else if (is_symbol("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_symbol("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
    count_chain(length);
  }
}

ExpressionPtr Parser::parse_attribute(ExpressionPtr node) {
  ExpressionPtr whole = make(Kind_::attribute);
  expect_symbol(".");
  const Token token = next();
  whole->operands.push_back(std::move(node));
  if (token.kind == TokenKind::name) {
    whole->name = token.text;
  } else if (token.kind == TokenKind::integer) {
    whole->kind = Kind_::item;
    whole->operands.push_back(make(Kind_::constant));
    whole->operands.back()->constant = parse_integer(token);
  } else {
    fail_at(token.line,
            "unexpected " + describe(token) + " after '.'; expected a name or a number");
  }
  return whole;
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr node) {
  ExpressionPtr whole = make(Kind_::item);
  expect_symbol("[");
  whole->operands.push_back(std::move(node));
  if (!is_symbol(":")) {
    whole->operands.push_back(parse_expression());
    if (is_symbol(",")) fail_here("a subscript of several values is not supported");
  } else {
    whole->operands.push_back(nullptr);
  }
  if (is_symbol(":")) {
    whole->kind = Kind_::slice;
    while (skip_symbol(":")) {
      if (whole->operands.size() == 4) fail_here("a slice has more than three parts");
      whole->operands.push_back(is_symbol(":") || is_symbol("]") ? nullptr : parse_expression());
    }
    whole->operands.resize(4);
  }
  expect_symbol("]");
  return whole;
}

ExpressionPtr Parser::parse_call(ExpressionPtr node) {
  ExpressionPtr whole = make(Kind_::call);
  whole->operands.push_back(std::move(node));
  whole->arguments = parse_arguments();
  return whole;
}

ArgumentList Parser::parse_arguments() {
  ArgumentList list;
  expect_symbol("(");
  bool first = true;
  while (!is_symbol(")")) {
    if (!first) expect_symbol(",");
    if (is_symbol(")")) break;
    first = false;
    const int line = peek().line;
    const bool named =
        peek().kind == TokenKind::name && peek(1).kind == TokenKind::symbol && peek(1).text == "=";
    if (skip_symbol("**")) {
      if (list.star_star) fail_at(line, "a call has two '**' arguments");
      list.star_star = parse_expression();
    } else if (list.star_star) {
      fail_at(line, "an argument follows a '**' argument");
    } else if (skip_symbol("*")) {
      if (list.star) fail_at(line, "a call has two '*' arguments");
      list.star = parse_expression();
    } else if (named) {
      std::string name = next().text;
      next();
      list.named.push_back({std::move(name), parse_expression()});
    } else {
      if (list.star || !list.named.empty())
        fail_at(line, "a positional argument follows a named one");
      list.positional.push_back(parse_expression());
    }
  }
  expect_symbol(")");
  return list;
}

ExpressionPtr Parser::parse_filters(ExpressionPtr node) {
  int length = 0;
  while (true) {
    if (is_symbol("|")) {
      next();
      node = parse_filter(std::move(node));
    } else if (is_word("is")) {
      node = parse_test(std::move(node));
    } else if (is_symbol("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
    count_chain(length);
  }
}

ExpressionPtr Parser::parse_filter(ExpressionPtr node) {
  ExpressionPtr whole = make(Kind_::filter, expect_name("a filter"));
  while (skip_symbol(".")) whole->name += "." + expect_name("a filter");
  if (!soft_ && find_filter(whole->name) == nullptr)
    fail_at(whole->line, "No filter named '" + whole->name + "'");
  whole->operands.push_back(std::move(node));
  if (is_symbol("(")) whole->arguments = parse_arguments();
  return whole;
}

ExpressionPtr Parser::parse_test(ExpressionPtr node) {
  next();
  const bool negated = skip_word("not");
  ExpressionPtr whole = make(Kind_::test, expect_name("a test"));
  while (skip_symbol(".")) whole->name += "." + expect_name("a test");
  whole->operands.push_back(std::move(node));
  const Token& token = peek();
  const bool operand =
      token.kind == TokenKind::text || token.kind == TokenKind::integer ||
      token.kind == TokenKind::floating || is_symbol("[") || is_symbol("{") ||
      (token.kind == TokenKind::name && !is_word("else") && !is_word("or") && !is_word("and"));
  if (is_symbol("(")) {
    whole->arguments = parse_arguments();
  } else if (operand) {
    if (is_word("is")) fail_here("tests cannot be chained with 'is'");
    whole->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  if (!soft_ && find_test(whole->name) == nullptr)
    fail_at(whole->line, "No test named '" + whole->name + "'");
  if (!negated) return whole;
  ExpressionPtr opposite = make(Kind_::negate);
  opposite->operands.push_back(std::move(whole));
  return opposite;
}

}  // namespace finetune::jinja
