#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/interpreter.h"

#include <algorithm>

namespace finetune::jinja {

namespace {

constexpr int kMaxDepth = 1000;  // evaluations inside each other: stack

bool compare_with(Interpreter& interpreter, const std::string& symbol, const Value& a,
                  const Value& b) {
  if (symbol == "==") return equal(a, b);
  if (symbol == "!=") return !equal(a, b);
  if (symbol == "in") return contains(interpreter, b, a);
  if (symbol == "not in") return !contains(interpreter, b, a);
  const int order = compare(a, b, symbol);
  const bool unordered =
      a.is_number() && b.is_number() && (a.number() != a.number() || b.number() != b.number());
  if (unordered) return false;
  if (symbol == "<") return order < 0;
  if (symbol == "<=") return order <= 0;
  if (symbol == ">") return order > 0;
  return order >= 0;
}

}  // namespace

class Interpreter::Level {
 public:
  explicit Level(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter.depth_ > kMaxDepth) {
      fail(ErrorKind::data, "the template calls itself more than {} levels deep", kMaxDepth);
    }
    interpreter.budget_.step();
  }
  ~Level() { --interpreter_.depth_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Interpreter& interpreter_;
};

Value Interpreter::evaluate(const Expression& node) {
  const Level level(*this);
  using NodeKind = Expression::Kind;
  const auto operand = [&](std::size_t i) { return evaluate(*node.operands[i]); };
  const auto part = [&](std::size_t i) { return node.operands[i] ? operand(i) : Value::none(); };
  switch (node.kind) {
    case NodeKind::constant:
      return node.constant;
    case NodeKind::name:
      return evaluate_name(node);
    case NodeKind::list:
      return heap_.list(evaluate_all(node.operands));
    case NodeKind::tuple:
      return heap_.tuple(evaluate_all(node.operands));
    case NodeKind::dict:
      return evaluate_dict(node);
    case NodeKind::attribute:
      return attribute(operand(0), node.name);
    case NodeKind::item: {
      const Value object = operand(0);
      return item(object, operand(1));
    }
    case NodeKind::slice: {
      const Value object = operand(0), begin = part(1), end = part(2);
      return take_slice(*this, object, begin, end, part(3));
    }
    case NodeKind::call:
      return evaluate_call(node);
    case NodeKind::filter: {
      const Value value = node.operands[0] ? operand(0) : *block_text_;
      const Arguments arguments = evaluate_arguments(node.arguments);
      line_ = node.line;
      return apply_filter(node.name, value, arguments);
    }
    case NodeKind::test: {
      const Value value = operand(0);
      return Value::of_bool(apply_test(node.name, value, evaluate_arguments(node.arguments)));
    }
    case NodeKind::negate:
      return Value::of_bool(!is_true(operand(0)));
    case NodeKind::unary:
      return apply_unary(node.name, operand(0));
    case NodeKind::binary: {
      const Value left = operand(0), right = operand(1);
      line_ = node.line;
      return apply_binary(*this, node.name, left, right);
    }
    case NodeKind::concat:
      return evaluate_concat(node);
    case NodeKind::compare:
      return evaluate_compare(node);
    case NodeKind::logic: {
      Value left = operand(0);
      return is_true(left) == (node.name == "or") ? left : operand(1);
    }
    case NodeKind::conditional:
      return evaluate_conditional(node);
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& node) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    const auto found = scope->variables.find(node.name);
    if (found != scope->variables.end()) return found->second;
  }
  if (auto global = find_global(*this, node.name)) return std::move(*global);
  return heap_.undefined("'" + node.name + "' is undefined");
}

Value Interpreter::evaluate_call(const Expression& node) {
  const Value callee = evaluate(*node.operands.front());
  const Arguments arguments = evaluate_arguments(node.arguments);
  const int line = line_ = node.line;
  Value result = call(callee, arguments);
  line_ = line;
  return result;
}

Value Interpreter::evaluate_dict(const Expression& node) {
  std::vector<std::pair<Value, Value>> entries;
  for (std::size_t i = 0; i + 1 < node.operands.size(); i += 2) {
    Value key = evaluate(*node.operands[i]);
    entries.emplace_back(std::move(key), evaluate(*node.operands[i + 1]));
  }
  return heap_.dict(std::move(entries));
}

Value Interpreter::evaluate_concat(const Expression& node) {
  TextBuilder builder;
  for (const ExpressionPtr& part : node.operands) builder.add(text_of(text(evaluate(*part))));
  return builder.finish(heap_);
}

Value Interpreter::evaluate_compare(const Expression& node) {
  Value left = evaluate(*node.operands[0]);
  for (std::size_t i = 0; i < node.symbols.size(); ++i) {
    Value right = evaluate(*node.operands[i + 1]);
    line_ = node.line;
    if (!compare_with(*this, node.symbols[i], left, right)) return Value::of_bool(false);
    left = std::move(right);
  }
  return Value::of_bool(true);
}

Value Interpreter::evaluate_conditional(const Expression& node) {
  if (is_true(evaluate(*node.operands[1]))) return evaluate(*node.operands[0]);
  if (node.operands[2]) return evaluate(*node.operands[2]);
  return heap_.undefined("an inline 'if' whose condition is false has no 'else'");
}

std::vector<Value> Interpreter::evaluate_all(const std::vector<ExpressionPtr>& nodes) {
  std::vector<Value> values;
  values.reserve(nodes.size());
  for (const ExpressionPtr& node : nodes) values.push_back(evaluate(*node));
  return values;
}

Arguments Interpreter::evaluate_arguments(const ArgumentList& list) {
  Arguments arguments;
  arguments.positional = evaluate_all(list.positional);
  for (const NamedExpression& named : list.named)
    arguments.named.emplace_back(named.name, evaluate(*named.value));
  if (list.star) {
    for (Value& value : iterate(evaluate(*list.star)))
      arguments.positional.push_back(std::move(value));
  }
  if (list.star_star) {
    const Value dict = evaluate(*list.star_star);
    if (!dict.is(Kind::dict))
      fail(ErrorKind::data, "the argument after ** is a '{}'; expected a dictionary",
           type_name(dict));
    for (const auto& [key, value] : dict_of(dict).entries) {
      arguments.named.emplace_back(require_text(key, "a keyword").bytes, value);
    }
  }
  for (std::size_t i = 0; i < arguments.named.size(); ++i) {
    if (arguments.find_named(arguments.named[i].first) != &arguments.named[i].second) {
      fail(ErrorKind::data, "the keyword argument '{}' is given twice", arguments.named[i].first);
    }
  }
  return arguments;
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  const Level level(*this);
  require_defined(callee);
  if (!callee.is(Kind::instance))
    fail(ErrorKind::data, "'{}' object is not callable", type_name(callee));
  // It may take the place it is kept in away from under itself.
  const std::shared_ptr<Object> kept = callee.object;
  return static_cast<Instance&>(*kept).call(*this, arguments);
}

Value Interpreter::apply_filter(std::string_view name, const Value& value,
                                const Arguments& arguments) {
  const Level level(*this);
  const Function filter = find_filter(name);
  if (filter == nullptr) fail(ErrorKind::data, "No filter named '{}'", name);
  return filter(*this, value, arguments);
}

bool Interpreter::apply_test(std::string_view name, const Value& value,
                             const Arguments& arguments) {
  const Level level(*this);
  const Test test = find_test(name);
  if (test == nullptr) fail(ErrorKind::data, "No test named '{}'", name);
  return test(*this, value, arguments);
}

void Interpreter::bind_parameters(const MacroDefinition& macro, Scope& scope,
                                  const Arguments& arguments) {
  const std::size_t count = macro.parameters.size();
  const std::size_t first_default = count - macro.defaults.size();
  std::vector<bool> used(arguments.named.size(), false);
  for (std::size_t i = 0; i < count; ++i) {
    const std::string& name = macro.parameters[i];
    const Value* given = i < arguments.positional.size() ? &arguments.positional[i] : nullptr;
    for (std::size_t n = 0; n < arguments.named.size(); ++n) {
      if (arguments.named[n].first != name) continue;
      if (given != nullptr)
        fail(ErrorKind::data, "macro '{}' got two values for the argument '{}'", macro.name, name);
      given = &arguments.named[n].second;
      used[n] = true;
    }
    // A default may use the parameters before it.
    scope.variables[name] = given != nullptr ? *given
                            : i >= first_default
                                ? evaluate(*macro.defaults[i - first_default])
                                : heap_.undefined("parameter '" + name + "' was not provided");
  }
  std::vector<std::pair<Value, Value>> others;
  for (std::size_t n = 0; n < arguments.named.size(); ++n) {
    const auto& [name, value] = arguments.named[n];
    if (used[n]) continue;
    if (name == "caller" && macro.uses_caller) {
      scope.variables["caller"] = value;
    } else if (macro.uses_kwargs) {
      others.emplace_back(heap_.text(name), value);
    } else {
      fail(ErrorKind::data, "macro '{}' takes no keyword argument '{}'", macro.name, name);
    }
  }
  const bool named_caller = std::find(macro.parameters.begin(), macro.parameters.end(), "caller") !=
                            macro.parameters.end();
  if (macro.uses_caller && !named_caller && scope.variables.count("caller") == 0) {
    scope.variables["caller"] = heap_.undefined("No caller defined");
  }
  if (macro.uses_kwargs) scope.variables["kwargs"] = heap_.dict(std::move(others));
  if (macro.uses_varargs) {
    const std::size_t first = std::min(count, arguments.positional.size());
    scope.variables["varargs"] =
        heap_.tuple({arguments.positional.begin() + static_cast<std::ptrdiff_t>(first),
                     arguments.positional.end()});
  } else if (arguments.positional.size() > count) {
    fail(ErrorKind::data, "macro '{}' takes not more than {} argument(s)", macro.name, count);
  }
}

Value Interpreter::run_macro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                             const Arguments& arguments) {
  const std::shared_ptr<Scope> inner = new_scope(scope);
  const std::shared_ptr<Scope> outer = std::exchange(scope_, inner);
  TextBuilder captured;
  TextBuilder* outer_out = std::exchange(out_, &captured);
  bind_parameters(macro, *inner, arguments);
  run_block(*macro.body);
  out_ = outer_out;
  scope_ = outer;
  return captured.finish(heap_);
}

}  // namespace finetune::jinja
