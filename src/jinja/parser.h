#pragma once

#include "jinja/ast.h"
#include "jinja/lexer.h"

#include <set>

namespace finetune::jinja {

/// Words that end a list of statements.
using EndWords = std::vector<std::string_view>;

/// Turns tokens into statements. Throws Error(model) "where:line: found; expected".
class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& where);

  Block parse_template();
  bool has_generation() const { return has_generation_; }

 private:
  class Nesting;  ///< one level deeper, as long as it lives

  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail_at(peek().line, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void fail_at(int line, const std::string& message) const;

  const Token& peek(std::size_t ahead = 0) const;
  Token next();
  bool is_symbol(std::string_view symbol) const;
  bool is_word(std::string_view word) const;
  bool skip_symbol(std::string_view symbol);
  bool skip_word(std::string_view word);
  void expect_symbol(std::string_view symbol);
  void expect_word(std::string_view word);
  std::string expect_name(std::string_view what);
  void expect_block_end();
  std::string describe(const Token& token) const;

  // parse_statement.cpp
  std::unique_ptr<Block> parse_block(const EndWords& ends, std::string_view opened);
  std::unique_ptr<Block> parse_scoped_block(const EndWords& ends, std::string_view opened);
  void parse_statement(Block& block);
  void parse_if(Statement& statement);
  void parse_for(Statement& statement);
  void parse_set(Statement& statement);
  void parse_macro(Statement& statement);
  void parse_call_block(Statement& statement);
  void parse_with(Statement& statement);
  void parse_signature(MacroDefinition& macro);
  void parse_macro_body(MacroDefinition& macro, std::string_view end);
  Target parse_target(bool with_namespace);
  Target parse_one_target(bool with_namespace);

  // parse_expression.cpp
  ExpressionPtr parse_expression();
  ExpressionPtr parse_tuple(bool with_conditional);
  ExpressionPtr parse_logic(bool is_or);
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_binary(int level);
  ExpressionPtr parse_concat();
  ExpressionPtr parse_unary(bool with_filter);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filters(ExpressionPtr node);
  ExpressionPtr parse_filter(ExpressionPtr node);
  ExpressionPtr parse_filters_of_block();
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_attribute(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  ArgumentList parse_arguments();
  ExpressionPtr make(Expression::Kind kind, std::string name = {}) const;
  Value parse_integer(const Token& token) const;
  void count_chain(int& length) const;

  std::vector<Token> tokens_;
  const std::string& where_;
  std::size_t position_ = 0;
  int depth_ = 0;
  int loops_ = 0;      ///< open loops: where break and continue may be
  bool soft_ = false;  ///< an unknown filter or test is told only when it is reached
  std::vector<MacroDefinition*> macros_;  ///< open macros, to see what they use
  bool has_generation_ = false;
  Heap constants_{nullptr};
};

class Parser::Nesting {
 public:
  explicit Nesting(Parser& parser);
  ~Nesting() { --parser_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Parser& parser_;
};

}  // namespace finetune::jinja
