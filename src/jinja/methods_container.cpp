#include "finetune/base/error.h"
#include "jinja/functions.h"

#include <algorithm>

namespace finetune::jinja {

namespace {

/// Methods of dictionaries that do not change them.
Value dict_view(Interpreter& interpreter, const Value& self, const std::string& label) {
  const Heap& heap = interpreter.heap();
  std::vector<Value> items;
  for (const auto& [key, value] : dict_of(self).entries) {
    items.push_back(label == "dict_keys"     ? key
                    : label == "dict_values" ? value
                                             : heap.tuple({key, value}));
  }
  return heap.list(std::move(items), Kind::view, label);
}

Value dict_keys(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "keys", {});
  return dict_view(interpreter, self, "dict_keys");
}

Value dict_values(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "values", {});
  return dict_view(interpreter, self, "dict_values");
}

Value dict_items(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "items", {});
  return dict_view(interpreter, self, "dict_items");
}

Value dict_get(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "get", {"key", "default"}, 1);
  if (bound[0]->is(Kind::list) || bound[0]->is(Kind::dict))
    fail(ErrorKind::data, "unhashable type: '{}'", type_name(*bound[0]));
  if (const Value* found = dict_of(self).find(*bound[0])) return *found;
  return bound[1] != nullptr ? *bound[1] : Value::none();
}

Value same(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "copy", {});
  return self;  // nothing changes it
}

Value dict_fromkeys(Interpreter& interpreter, const Value&, const Arguments& arguments) {
  const Bound bound(arguments, "fromkeys", {"iterable", "value"}, 1);
  std::vector<std::pair<Value, Value>> entries;
  for (const Value& key : interpreter.iterate(*bound[0]))
    entries.emplace_back(key, bound[1] != nullptr ? *bound[1] : Value::none());
  return interpreter.heap().dict(std::move(entries));
}

Value list_index(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "index", {"value", "start", "stop"}, 1);
  const std::vector<Value> items = interpreter.iterate(self);
  const auto count = static_cast<std::int64_t>(items.size());
  const auto place = [&](std::size_t argument, std::int64_t otherwise) {
    const std::int64_t index = bound.whole(argument, otherwise);
    return std::clamp(index < 0 ? index + count : index, std::int64_t{0}, count);
  };
  for (std::int64_t i = place(1, 0); i < place(2, count); ++i) {
    if (equal(items[static_cast<std::size_t>(i)], *bound[0])) return Value::of_int(i);
  }
  fail(ErrorKind::data, "the value is not in the {}", type_name(self));
}

Value list_count(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "count", {"value"}, 1);
  const std::vector<Value> items = interpreter.iterate(self);
  return Value::of_int(std::count_if(items.begin(), items.end(),
                                     [&](const Value& item) { return equal(item, *bound[0]); }));
}

}  // namespace

Function find_dict_method(std::string_view name) {
  if (name == "get") return dict_get;
  if (name == "items") return dict_items;
  if (name == "keys") return dict_keys;
  if (name == "values") return dict_values;
  if (name == "copy") return same;
  if (name == "fromkeys") return dict_fromkeys;
  return nullptr;
}

Function find_list_method(std::string_view name, bool is_tuple) {
  if (name == "index") return list_index;
  if (name == "count") return list_count;
  if (name == "copy" && !is_tuple) return same;
  return nullptr;
}

}  // namespace finetune::jinja
