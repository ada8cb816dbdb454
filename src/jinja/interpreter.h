#pragma once

#include "finetune/jinja/template.h"
#include "jinja/ast.h"
#include "jinja/text.h"

#include <memory>
#include <unordered_map>

namespace finetune::jinja {

/// The variables of a block with a scope of its own.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::unordered_map<std::string, Value> variables;
};

/// An object with attributes that can be set. The interpreter owns it, so that it can be part of
/// itself.
struct Namespace : Instance {
  std::vector<std::pair<std::string, Value>> members;
  int* printing = nullptr;  ///< of the interpreter: how many namespaces are being printed

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  std::string type_name() const override { return "Namespace"; }
  std::string print() const override;
  bool is_namespace() const override { return true; }
  void set(std::string_view name, Value value);
};

/// Runs one template once.
class Interpreter {
 public:
  Interpreter(const RenderOptions& options, const std::string& where);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Rendered run(const Block& block, const nlohmann::ordered_json& variables);

  const Heap& heap() const { return heap_; }
  Budget& budget() { return budget_; }
  const RenderOptions& options() const { return options_; }

  /// Python's str().
  Value text(const Value& value) const { return to_text(heap_, value); }
  /// value.name, as Jinja looks it up: a method or attribute, then a member.
  Value attribute(const Value& value, std::string_view name);
  /// value[key]: a member, then an attribute; undefined where there is none.
  Value item(const Value& value, const Value& key);
  /// What iterating gives. A generator is used up. Throws Error(data) for what cannot be iterated.
  std::vector<Value> iterate(const Value& value);
  Value call(const Value& callee, const Arguments& arguments);
  Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& value, const Arguments& arguments);
  /// "a.b.0" looked up step by step, as the attribute= of filters says it.
  Value lookup(const Value& value, const Value& path);

  Value make_namespace(const Arguments& arguments);
  /// The text that a macro or call block writes.
  Value run_macro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                  const Arguments& arguments);

 private:
  friend class LoopObject;
  enum class Flow { normal, broken, continued };
  class Level;  ///< one evaluation deeper

  // execute.cpp
  Flow run_block(const Block& block);
  Flow run_scoped(const Block& block, const std::shared_ptr<Scope>& scope);
  Flow run_statement(const Statement& statement);
  Flow run_branch(const Statement& statement);
  Flow run_loop(const Statement& statement);
  void run_set_block(const Statement& statement);
  void run_call_block(const Statement& statement);
  void run_with(const Statement& statement);
  void run_generation(const Statement& statement);
  void define_macro(const MacroDefinition& macro);
  Value capture(const Block& block, const std::shared_ptr<Scope>& scope);
  void assign(const Target& target, const Value& value);
  void emit(const TextObject& text);
  void bind_parameters(const MacroDefinition& macro, Scope& scope, const Arguments& arguments);
  std::shared_ptr<Scope> new_scope(const std::shared_ptr<Scope>& parent) const;

  // evaluate.cpp
  Value evaluate(const Expression& node);
  Value evaluate_name(const Expression& node);
  Value evaluate_call(const Expression& node);
  Value evaluate_compare(const Expression& node);
  Value evaluate_conditional(const Expression& node);
  Value evaluate_dict(const Expression& node);
  Value evaluate_concat(const Expression& node);
  std::vector<Value> evaluate_all(const std::vector<ExpressionPtr>& nodes);
  Arguments evaluate_arguments(const ArgumentList& list);

  // variables.cpp
  Value from_json(const nlohmann::ordered_json& json, std::int32_t source, int depth);
  Value message_from_json(const nlohmann::ordered_json& json, std::int32_t index);

  const RenderOptions& options_;
  const std::string& where_;
  Budget budget_;
  Heap heap_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<Instance>> macros_;
  std::shared_ptr<Scope> scope_;
  TextBuilder output_;
  TextBuilder* out_ = &output_;        ///< where text goes: the output, or a capture
  std::int32_t turn_ = -1;             ///< the message whose loop is running
  const Value* block_text_ = nullptr;  ///< what the filters of a block are applied to
  int line_ = 1;
  int depth_ = 0;
  int printing_ = 0;
};

}  // namespace finetune::jinja
