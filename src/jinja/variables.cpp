#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/interpreter.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>

namespace finetune::jinja {

namespace {

constexpr int kMaxJsonDepth = 150;

/// Fields of a message that name things; what an assistant says is in the others.
constexpr std::array<std::string_view, 5> kUntracked = {"role", "name", "tool_call_id", "weight",
                                                        "from"};

}  // namespace

Interpreter::Interpreter(const RenderOptions& options, const std::string& where)
    : options_(options),
      where_(where),
      budget_(options.max_steps, options.max_memory_bytes),
      heap_(&budget_),
      scope_(std::make_shared<Scope>()),
      output_(options.max_output_bytes) {}

Interpreter::~Interpreter() {
  // Namespaces and macros may hold each other: first empty them all.
  for (const auto& held : namespaces_) held->members.clear();
  scope_.reset();
}

Value Interpreter::from_json(const nlohmann::ordered_json& json, std::int32_t source, int depth) {
  if (depth > kMaxJsonDepth)
    fail(ErrorKind::data, "the variables are nested more than {} deep", kMaxJsonDepth);
  budget_.step();
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return Value::of_bool(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Value::of_int(json.get<std::int64_t>());
    case nlohmann::json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
      if (number > largest)
        fail(ErrorKind::data, "the number {} of the variables is larger than {}", number, largest);
      return Value::of_int(static_cast<std::int64_t>(number));
    }
    case nlohmann::json::value_t::number_float:
      return Value::of_float(json.get<double>());
    case nlohmann::json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      std::vector<Span> spans;
      if (source >= 0 && !text.empty()) spans.push_back({0, text.size(), Tag{source, -1, false}});
      return heap_.text(text, std::move(spans));
    }
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(item, source, depth + 1));
      return heap_.list(std::move(items), Kind::list, {}, source);
    }
    case nlohmann::json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [name, value] : json.items()) {
        entries.emplace_back(from_json(name, source, depth), from_json(value, source, depth + 1));
      }
      return heap_.dict(std::move(entries), source);
    }
    default:
      return Value::none();
  }
}

/// A message; only what it says is tracked.
Value Interpreter::message_from_json(const nlohmann::ordered_json& json, std::int32_t index) {
  if (!json.is_object()) return from_json(json, index, 1);
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : json.items()) {
    const bool untracked =
        std::find(kUntracked.begin(), kUntracked.end(), name) != kUntracked.end();
    entries.emplace_back(heap_.text(name), from_json(value, untracked ? -1 : index, 1));
  }
  return heap_.dict(std::move(entries), index, true);
}

Rendered Interpreter::run(const Block& block, const nlohmann::ordered_json& variables) {
  try {
    if (!variables.is_object()) fail(ErrorKind::data, "the variables are not an object");
    for (const auto& [name, value] : variables.items()) {
      if (name == "messages" && value.is_array()) {
        std::vector<Value> messages;
        for (const auto& message : value) {
          messages.push_back(
              message_from_json(message, static_cast<std::int32_t>(messages.size())));
        }
        scope_->variables[name] = heap_.list(std::move(messages));
      } else {
        scope_->variables[name] = from_json(value, -1, 0);
      }
    }
    // What the template sets is not what it was given.
    scope_ = new_scope(scope_);
    run_block(block);
  } catch (const Error& error) {
    fail(error.kind(), "{}:{}: {}", where_, line_, error.what());
  }
  Rendered rendered;
  for (const Span& span : output_.spans()) {
    if (span.tag.source >= 0)
      rendered.tracked.push_back({span.begin, span.end, span.tag.source, span.tag.turn});
    if (!span.tag.generated) continue;
    if (!rendered.generation.empty() && rendered.generation.back().end == span.begin) {
      rendered.generation.back().end = span.end;
    } else {
      rendered.generation.push_back({span.begin, span.end});
    }
  }
  rendered.text = output_.take_bytes();
  return rendered;
}

}  // namespace finetune::jinja
