#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/instances.h"
#include "jinja/interpreter.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <array>

namespace finetune::jinja {

namespace {

/// Methods that would change a list or a dictionary; the sandbox of chat templates has none of
/// them.
constexpr std::array<std::string_view, 12> kChanging = {
    "append", "clear",   "extend", "insert", "pop",        "popitem",
    "remove", "reverse", "sort",   "update", "setdefault", "add"};

bool is_changing(const Value& value, std::string_view name) {
  static constexpr std::array<std::string_view, 5> dict_names = {"clear", "pop", "popitem",
                                                                 "update", "setdefault"};
  if (value.is(Kind::dict))
    return std::find(dict_names.begin(), dict_names.end(), name) != dict_names.end();
  if (!value.is(Kind::list)) return false;
  return name != "update" && name != "setdefault" && name != "popitem" && name != "add" &&
         std::find(kChanging.begin(), kChanging.end(), name) != kChanging.end();
}

Function find_method(const Value& value, std::string_view name) {
  switch (value.kind) {
    case Kind::text:
      return find_text_method(name);
    case Kind::dict:
      return find_dict_method(name);
    case Kind::list:
      return find_list_method(name, false);
    case Kind::tuple:
    case Kind::range:
      return find_list_method(name, true);
    default:
      return nullptr;
  }
}

Value missing(const Heap& heap, const Value& value, std::string_view name) {
  const std::string type = value.is(Kind::none) ? "None" : type_name(value) + " object";
  return heap.undefined("'" + type + "' has no attribute '" + std::string(name) + "'");
}

/// A method, or an attribute of an instance; nothing where there is none.
std::optional<Value> own_attribute(Interpreter& interpreter, const Value& value,
                                   std::string_view name) {
  if (value.is(Kind::instance)) return instance_of(value).attribute(interpreter, name);
  if (is_changing(value, name)) {
    return interpreter.heap().undefined("'" + std::string(name) + "' would change a '" +
                                        type_name(value) + "', which templates may not do");
  }
  if (value.is(Kind::tuple) && list_of(value).label == kGroupLabel &&
      (name == "grouper" || name == "list")) {
    return items_of(value)[name == "list" ? 1 : 0];
  }
  const Function method = find_method(value, name);
  if (method == nullptr) return std::nullopt;
  return make_callable(
      interpreter, std::string(name),
      [method, value](Interpreter& in, const Arguments& arguments) {
        return method(in, value, arguments);
      },
      value.depth());
}

std::optional<Value> element(const Heap& heap, const Value& value, std::int64_t index) {
  if (value.is(Kind::text)) {
    const std::string& bytes = bytes_of(value);
    heap.work(bytes.size() * 8);
    const std::vector<std::size_t> offsets = code_point_offsets(bytes);
    const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
    if (index < 0) index += count;
    if (index < 0 || index >= count) return std::nullopt;
    return slice(heap, value, offsets[static_cast<std::size_t>(index)],
                 offsets[static_cast<std::size_t>(index) + 1]);
  }
  const auto& items = items_of(value);
  if (index < 0) index += static_cast<std::int64_t>(items.size());
  if (index < 0 || index >= static_cast<std::int64_t>(items.size())) return std::nullopt;
  return items[static_cast<std::size_t>(index)];
}

/// A function with a name.
struct CallableObject : Instance {
  std::string name;
  Callable function;

  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    return function(interpreter, arguments);
  }
  bool callable() const override { return true; }
  std::string type_name() const override { return "function"; }
  std::string print() const override { return "<function " + name + ">"; }
};

}  // namespace

Value make_callable(Interpreter& interpreter, std::string name, Callable callable,
                    std::int32_t depth) {
  auto object = std::make_shared<CallableObject>();
  object->name = std::move(name);
  object->function = std::move(callable);
  return interpreter.heap().instance(std::move(object), depth);
}

Value Interpreter::attribute(const Value& value, std::string_view name) {
  require_defined(value);
  if (auto own = own_attribute(*this, value, name)) return std::move(*own);
  if (value.is(Kind::dict)) {
    if (const Value* member = dict_of(value).find(name)) return *member;
  }
  return missing(heap_, value, name);
}

Value Interpreter::item(const Value& value, const Value& key) {
  require_defined(value);
  const bool indexed = value.is(Kind::text) || value.is(Kind::list) || value.is(Kind::tuple) ||
                       value.is(Kind::range);
  if (value.is(Kind::dict)) {
    if (const Value* member = dict_of(value).find(key)) return *member;
  } else if (indexed && key.is_whole()) {
    if (auto found = element(heap_, value, key.whole())) return std::move(*found);
  }
  if (key.is(Kind::text)) {
    if (auto own = own_attribute(*this, value, bytes_of(key))) return std::move(*own);
    return missing(heap_, value, bytes_of(key));
  }
  TextBuilder message;
  message.add(type_name(value) + " object has no element ");
  add_repr(message, key);
  return heap_.undefined(message.take_bytes());
}

std::vector<Value> Interpreter::iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind) {
    case Kind::undefined:
      return items;
    case Kind::text: {
      const std::string& bytes = bytes_of(value);
      budget_.step(static_cast<std::int64_t>(bytes.size()));
      for (std::size_t begin = 0; begin < bytes.size();) {
        std::size_t end = begin;
        next_code_point(bytes, end);
        items.push_back(slice(heap_, value, begin, end));
        begin = end;
      }
      return items;
    }
    case Kind::dict:
      for (const auto& [name, member] : dict_of(value).entries) items.push_back(name);
      break;
    case Kind::generator: {
      ListObject& list = list_of(value);
      items.assign(list.items.begin() + static_cast<std::ptrdiff_t>(list.position),
                   list.items.end());
      list.position = list.items.size();
      break;
    }
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
    case Kind::view:
      items = items_of(value);
      break;
    default:
      fail(ErrorKind::data, "'{}' object is not iterable", type_name(value));
  }
  budget_.work(items.size() * sizeof(Value));
  return items;
}

Value Interpreter::lookup(const Value& value, const Value& path) {
  if (!path.is(Kind::text)) return item(value, path);
  Value found = value;
  std::string_view rest = bytes_of(path);
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    const bool number =
        !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == name.npos;
    found = item(found, number ? Value::of_int(std::stoll(std::string(name)))
                               : heap_.text(std::string(name)));
    if (dot == rest.npos) return found;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace finetune::jinja
