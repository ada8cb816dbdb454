#pragma once

#include "jinja/value.h"

#include <memory>
#include <string>
#include <vector>

namespace finetune::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct NamedExpression {
  std::string name;
  ExpressionPtr value;
};

/// The arguments of a call, a filter or a test as they are written.
struct ArgumentList {
  std::vector<ExpressionPtr> positional;
  std::vector<NamedExpression> named;
  ExpressionPtr star, star_star;  ///< *list and **dictionary, or null
};

struct Expression {
  enum class Kind {
    constant,
    name,
    list,
    tuple,
    dict,         ///< operands: key, value, key, value ...
    attribute,    ///< operand 0 . name
    item,         ///< operand 0 [operand 1]
    slice,        ///< operand 0 [1:2:3], absent ones null
    call,         ///< operand 0 (arguments)
    filter,       ///< operand 0 | name(arguments); null: the text of a block
    test,         ///< operand 0 is name(arguments)
    negate,       ///< not operand 0
    unary,        ///< name is + or -
    binary,       ///< name is the symbol
    concat,       ///< operands joined by ~
    compare,      ///< operand 0, then symbols[i] operand i + 1
    logic,        ///< name is "and" or "or"
    conditional,  ///< 0 if 1 else 2; 2 may be null
  };

  Kind kind = Kind::constant;
  int line = 1;
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<std::string> symbols;
  ArgumentList arguments;
};

/// What is assigned to: a name, ns.name, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;      ///< of the namespace `name`, or ""
  std::vector<Target> parts;  ///< of a tuple, else empty
  bool is_tuple = false;
};

struct Block;

/// A macro's or a call block's parameters and text.
struct MacroDefinition {
  std::string name;
  int line = 1;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  ///< of the last parameters
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
  std::unique_ptr<Block> body;
};

struct Statement {
  enum class Kind {
    data,    ///< text
    print,   ///< expressions
    branch,  ///< expressions[i] chooses blocks[i]; one more block: else
    loop,  ///< target in expressions[0] if expressions[1] (may be null); blocks: body, else (may be
           ///< absent)
    set,   ///< target = expressions[0]
    set_block,  ///< target = block 0 through expressions[0] (may be null)
    macro,
    call_block,  ///< expressions[0] is the call; macro is the caller
    filter_block,
    with,  ///< targets[i] = expressions[i] in block 0
    generation,
    break_loop,
    continue_loop,
  };

  Kind kind = Kind::data;
  int line = 1;
  Value text;
  std::vector<Target> targets;
  std::vector<ExpressionPtr> expressions;
  std::vector<std::unique_ptr<Block>> blocks;
  std::unique_ptr<MacroDefinition> macro;
};

struct Block {
  std::vector<Statement> statements;
};

}  // namespace finetune::jinja
