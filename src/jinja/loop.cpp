#include "jinja/loop.h"

#include "finetune/base/error.h"
#include "jinja/instances.h"
#include "jinja/interpreter.h"

#include <algorithm>

namespace finetune::jinja {

LoopObject::LoopObject(std::vector<Value> items, std::function<bool(const Value&)> accept)
    : accept_(std::move(accept)) {
  (accept_ ? items_ : accepted_) = std::move(items);
}

/// Looks for one more accepted item; false where there is none.
bool LoopObject::find_next() {
  while (position_ < items_.size()) {
    const Value& item = items_[position_++];
    if (accept_ && !accept_(item)) continue;
    accepted_.push_back(item);
    return true;
  }
  return false;
}

bool LoopObject::advance() {
  if (taken_ == accepted_.size() && !find_next()) return false;
  ++taken_;
  return true;
}

std::int64_t LoopObject::length() {
  while (find_next()) {
  }
  return static_cast<std::int64_t>(accepted_.size());
}

std::string LoopObject::print() const {
  return "<LoopContext " + std::to_string(taken_) + "/" +
         std::to_string(std::max(items_.size(), accepted_.size())) + ">";
}

Value LoopObject::change(const std::vector<Value>& values) {
  const bool same = changed_before_ && values.size() == last_change_.size() &&
                    std::equal(values.begin(), values.end(), last_change_.begin(), equal);
  changed_before_ = true;
  last_change_ = values;
  return Value::of_bool(!same);
}

std::optional<Value> LoopObject::attribute(Interpreter& interpreter, std::string_view name) {
  const auto index = static_cast<std::int64_t>(taken_);
  if (name == "index") return Value::of_int(index);
  if (name == "index0") return Value::of_int(index - 1);
  if (name == "first") return Value::of_bool(index == 1);
  if (name == "length") return Value::of_int(length());
  if (name == "revindex") return Value::of_int(length() - index + 1);
  if (name == "revindex0") return Value::of_int(length() - index);
  if (name == "depth") return Value::of_int(1);
  if (name == "depth0") return Value::of_int(0);
  if (name == "last" || name == "nextitem") {
    const bool more = taken_ < accepted_.size() || find_next();
    if (name == "last") return Value::of_bool(!more);
    return more ? accepted_[taken_] : interpreter.heap().undefined("there is no next item");
  }
  if (name == "previtem") {
    return index > 1 ? accepted_[taken_ - 2]
                     : interpreter.heap().undefined("there is no previous item");
  }
  if (name == "cycle") {
    return make_callable(interpreter, "cycle", [index](Interpreter&, const Arguments& arguments) {
      if (arguments.positional.empty()) fail(ErrorKind::data, "no items for cycling given");
      return arguments
          .positional[static_cast<std::size_t>(index - 1) % arguments.positional.size()];
    });
  }
  if (name == "changed") {
    return make_callable(
        interpreter, "changed",
        [self = shared_from_this()](Interpreter&, const Arguments& arguments) {
          return self->change(arguments.positional);
        },
        this->depth);
  }
  return std::nullopt;
}

}  // namespace finetune::jinja
