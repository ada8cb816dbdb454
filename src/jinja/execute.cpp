#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/interpreter.h"
#include "jinja/loop.h"

#include <algorithm>

namespace finetune::jinja {

namespace {

/// A macro, or the caller of a call block.
struct Macro : Instance {
  const MacroDefinition* definition = nullptr;
  std::shared_ptr<Scope> scope;

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    const Heap& heap = interpreter.heap();
    if (name == "name") return heap.text(definition->name);
    if (name == "catch_kwargs") return Value::of_bool(definition->uses_kwargs);
    if (name == "catch_varargs") return Value::of_bool(definition->uses_varargs);
    if (name == "caller") return Value::of_bool(definition->uses_caller);
    if (name != "arguments") return std::nullopt;
    std::vector<Value> names;
    for (const std::string& parameter : definition->parameters)
      names.push_back(heap.text(parameter));
    return heap.tuple(std::move(names));
  }
  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    return interpreter.run_macro(*definition, scope, arguments);
  }
  bool callable() const override { return true; }
  std::string type_name() const override { return "Macro"; }
  std::string print() const override { return "<Macro '" + definition->name + "'>"; }
};

/// A value over an object that the interpreter owns.
Value unowned(Instance& instance) {
  Value value = Value::of(Kind::instance);
  value.object = std::shared_ptr<Object>(std::shared_ptr<void>(), &instance);
  return value;
}

std::int32_t message_of(const Value& value) {
  return value.is(Kind::dict) && dict_of(value).is_message ? dict_of(value).source : -1;
}

}  // namespace

std::optional<Value> Namespace::attribute(Interpreter&, std::string_view name) {
  for (const auto& [key, value] : members) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::string Namespace::print() const {
  // Namespaces may hold each other.
  if (*printing > 0) return "<Namespace {...}>";
  ++*printing;
  TextBuilder builder;
  builder.add("<Namespace {");
  for (const auto& [key, value] : members) {
    if (&key != &members.front().first) builder.add(", ");
    builder.add("'" + key + "': ");
    add_repr(builder, value);
  }
  builder.add("}>");
  --*printing;
  return builder.take_bytes();
}

void Namespace::set(std::string_view name, Value value) {
  if (name.starts_with('_')) {
    fail(ErrorKind::data,
         "a namespace cannot hold '{}': names that begin with an underscore are not allowed", name);
  }
  for (auto& [key, old] : members) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  members.emplace_back(name, std::move(value));
}

Value Interpreter::make_namespace(const Arguments& arguments) {
  namespaces_.push_back(std::make_unique<Namespace>());
  budget_.allocate(sizeof(Namespace));  // kept to the end
  Namespace& created = *namespaces_.back();
  created.printing = &printing_;
  for (const Value& source : arguments.positional) {
    if (!source.is(Kind::dict))
      fail(ErrorKind::data, "namespace() takes a dictionary and named values");
    for (const auto& [key, value] : dict_of(source).entries)
      created.set(require_text(key, "a name").bytes, value);
  }
  for (const auto& [name, value] : arguments.named) created.set(name, value);
  return unowned(created);
}

std::shared_ptr<Scope> Interpreter::new_scope(const std::shared_ptr<Scope>& parent) const {
  auto scope = std::make_shared<Scope>();
  scope->parent = parent;
  return scope;
}

Interpreter::Flow Interpreter::run_block(const Block& block) {
  for (const Statement& statement : block.statements) {
    budget_.step();
    line_ = statement.line;
    if (const Flow flow = run_statement(statement); flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_scoped(const Block& block, const std::shared_ptr<Scope>& scope) {
  const std::shared_ptr<Scope> outer = std::exchange(scope_, scope);
  const Flow flow = run_block(block);
  scope_ = outer;
  return flow;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  using StatementKind = Statement::Kind;
  switch (statement.kind) {
    case StatementKind::data:
      emit(text_of(statement.text));
      break;
    case StatementKind::print:
      for (const ExpressionPtr& node : statement.expressions) emit(text_of(text(evaluate(*node))));
      break;
    case StatementKind::branch:
      return run_branch(statement);
    case StatementKind::loop:
      return run_loop(statement);
    case StatementKind::set:
      assign(statement.targets.front(), evaluate(*statement.expressions.front()));
      break;
    case StatementKind::set_block:
      run_set_block(statement);
      break;
    case StatementKind::macro:
      define_macro(*statement.macro);
      break;
    case StatementKind::call_block:
      run_call_block(statement);
      break;
    case StatementKind::filter_block: {
      const Value captured = capture(*statement.blocks.front(), new_scope(scope_));
      const Value* outer = std::exchange(block_text_, &captured);
      emit(text_of(text(evaluate(*statement.expressions.front()))));
      block_text_ = outer;
      break;
    }
    case StatementKind::with:
      run_with(statement);
      break;
    case StatementKind::generation:
      run_generation(statement);
      break;
    case StatementKind::break_loop:
      return Flow::broken;
    case StatementKind::continue_loop:
      return Flow::continued;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_branch(const Statement& statement) {
  for (std::size_t i = 0; i < statement.expressions.size(); ++i) {
    if (is_true(evaluate(*statement.expressions[i]))) return run_block(*statement.blocks[i]);
  }
  return statement.blocks.size() > statement.expressions.size()
             ? run_block(*statement.blocks.back())
             : Flow::normal;
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement) {
  const Target& target = statement.targets.front();
  const std::shared_ptr<Scope> outer = scope_;
  const Expression* filter = statement.expressions[1].get();
  std::function<bool(const Value&)> accept;
  if (filter != nullptr) {
    accept = [this, &target, &outer, filter](const Value& item) {
      const std::shared_ptr<Scope> current = std::exchange(scope_, new_scope(outer));
      assign(target, item);
      const bool accepted = is_true(evaluate(*filter));
      scope_ = current;
      return accepted;
    };
  }
  std::vector<Value> items = iterate(evaluate(*statement.expressions.front()));
  std::int32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  const std::size_t item_bytes = items.size() * 2 * sizeof(Value);
  const auto loop = std::make_shared<LoopObject>(std::move(items), std::move(accept));
  const Value loop_value = heap_.instance(loop, depth, item_bytes);
  const std::int32_t outer_turn = turn_;
  bool any = false;
  Flow flow = Flow::normal;
  while (flow != Flow::broken && loop->advance()) {
    any = true;
    budget_.step();
    if (const std::int32_t message = message_of(loop->current()); message >= 0) turn_ = message;
    const std::shared_ptr<Scope> scope = new_scope(outer);
    scope_ = scope;
    scope->variables["loop"] = loop_value;
    assign(target, loop->current());
    flow = run_block(*statement.blocks.front());
  }
  loop->finish();
  turn_ = outer_turn;
  scope_ = outer;
  if (!any && statement.blocks.size() > 1)
    return run_scoped(*statement.blocks[1], new_scope(outer));
  return Flow::normal;
}

void Interpreter::run_set_block(const Statement& statement) {
  Value captured = capture(*statement.blocks.front(), new_scope(scope_));
  if (statement.expressions.front()) {
    const Value* outer = std::exchange(block_text_, &captured);
    captured = evaluate(*statement.expressions.front());
    block_text_ = outer;
  }
  assign(statement.targets.front(), captured);
}

void Interpreter::define_macro(const MacroDefinition& definition) {
  auto macro = std::make_unique<Macro>();
  macro->definition = &definition;
  macro->scope = scope_;
  budget_.allocate(256);  // it and its scope are kept to the end
  scope_->variables[definition.name] = unowned(*macro);
  macros_.push_back(std::move(macro));
}

void Interpreter::run_call_block(const Statement& statement) {
  auto caller = std::make_unique<Macro>();
  caller->definition = statement.macro.get();
  caller->scope = scope_;
  budget_.allocate(256);
  const Expression& node = *statement.expressions.front();
  const Value callee = evaluate(*node.operands.front());
  Arguments arguments = evaluate_arguments(node.arguments);
  arguments.named.emplace_back("caller", unowned(*caller));
  macros_.push_back(std::move(caller));
  emit(text_of(text(call(callee, arguments))));
}

void Interpreter::run_with(const Statement& statement) {
  std::vector<Value> values = evaluate_all(statement.expressions);
  const std::shared_ptr<Scope> outer = scope_;
  scope_ = new_scope(outer);
  for (std::size_t i = 0; i < values.size(); ++i) assign(statement.targets[i], values[i]);
  run_block(*statement.blocks.front());
  scope_ = outer;
}

void Interpreter::run_generation(const Statement& statement) {
  const Value captured = capture(*statement.blocks.front(), new_scope(scope_));
  TextBuilder marked;
  marked.add_retagged(text_of(captured), [](Tag tag) {
    tag.generated = true;
    return tag;
  });
  emit(text_of(marked.finish(heap_)));
}

Value Interpreter::capture(const Block& block, const std::shared_ptr<Scope>& scope) {
  TextBuilder captured;
  TextBuilder* outer = std::exchange(out_, &captured);
  run_scoped(block, scope);
  out_ = outer;
  return captured.finish(heap_);
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    const std::vector<Value> values = iterate(value);
    if (values.size() != target.parts.size()) {
      fail(ErrorKind::data, "{} values to unpack (expected {}, got {})",
           values.size() < target.parts.size() ? "not enough" : "too many", target.parts.size(),
           values.size());
    }
    for (std::size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i]);
    return;
  }
  if (target.attribute.empty()) {
    scope_->variables[target.name] = value;
    return;
  }
  Expression name;
  name.name = target.name;
  const Value object = evaluate_name(name);
  if (!object.is(Kind::instance) || !instance_of(object).is_namespace()) {
    fail(ErrorKind::data, "cannot assign attribute on non-namespace object '{}'", target.name);
  }
  static_cast<Namespace&>(instance_of(object)).set(target.attribute, value);
}

void Interpreter::emit(const TextObject& text) {
  budget_.work(text.bytes.size());
  if (out_ != &output_ || text.spans.empty()) return out_->add(text);
  out_->add_retagged(text, [this](Tag tag) {
    if (tag.source >= 0) tag.turn = turn_;
    return tag;
  });
}

}  // namespace finetune::jinja
