#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/instances.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace finetune::jinja {

namespace {

constexpr std::int64_t kMaxRange = 100'000;  // as the sandbox of Jinja

/// cycler('a', 'b'): next() goes round.
struct Cycler : Instance, std::enable_shared_from_this<Cycler> {
  std::vector<Value> items;
  std::size_t position = 0;

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    if (name == "current") return items[position];
    if (name != "next" && name != "reset") return std::nullopt;
    const bool is_next = name == "next";
    return make_callable(
        interpreter, std::string(name),
        [self = shared_from_this(), is_next](Interpreter&, const Arguments&) {
          const std::size_t current = self->position;
          self->position = is_next ? (current + 1) % self->items.size() : 0;
          return is_next ? self->items[current] : Value::none();
        },
        depth);
  }
  std::string type_name() const override { return "Cycler"; }
};

Value make_cycler(Interpreter& interpreter, const Arguments& arguments) {
  if (arguments.positional.empty()) fail(ErrorKind::data, "cycler() needs at least one item");
  auto cycler = std::make_shared<Cycler>();
  cycler->items = arguments.positional;
  std::int32_t depth = 0;
  for (const Value& item : cycler->items) depth = std::max(depth, item.depth());
  return interpreter.heap().instance(std::move(cycler), depth,
                                     arguments.positional.size() * sizeof(Value));
}

/// joiner(', ') writes nothing the first time.
Value make_joiner(Interpreter& interpreter, const Arguments& arguments) {
  const Bound bound(arguments, "joiner", {"sep"});
  const Value separator = bound[0] != nullptr ? *bound[0] : interpreter.heap().text(", ");
  return make_callable(
      interpreter, "joiner",
      [separator, used = false](Interpreter& in, const Arguments&) mutable {
        return std::exchange(used, true) ? separator : in.heap().text("");
      },
      separator.depth());
}

Value make_range(Interpreter& interpreter, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty())
    fail(ErrorKind::data, "range() takes one to three integers");
  std::int64_t begin = 0, end = require_whole(given[0], "an argument of range()"), step = 1;
  if (given.size() > 1) {
    begin = end;
    end = require_whole(given[1], "an argument of range()");
  }
  if (given.size() > 2) step = require_whole(given[2], "an argument of range()");
  if (step == 0) fail(ErrorKind::data, "the step of range() must not be zero");
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(items.size()) == kMaxRange) {
      fail(ErrorKind::data, "a range of more than {} numbers is not allowed", kMaxRange);
    }
    items.push_back(Value::of_int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  interpreter.budget().step(static_cast<std::int64_t>(items.size()));
  std::string label = "range(" + std::to_string(begin) + ", " + std::to_string(end);
  if (step != 1) label += ", " + std::to_string(step);
  return interpreter.heap().list(std::move(items), Kind::range, label + ")");
}

Value make_dict(Interpreter& interpreter, const Arguments& arguments) {
  const Heap& heap = interpreter.heap();
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1)
    fail(ErrorKind::data, "dict() takes at most one positional argument");
  for (const Value& source : arguments.positional) {
    if (source.is(Kind::dict)) {
      entries = dict_of(source).entries;
      continue;
    }
    require_defined(source);
    for (const Value& pair : interpreter.iterate(source)) {
      const std::vector<Value> parts = interpreter.iterate(pair);
      if (parts.size() != 2)
        fail(ErrorKind::data, "dict() takes pairs, and an element has {} values", parts.size());
      entries.emplace_back(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) entries.emplace_back(heap.text(name), value);
  return heap.dict(std::move(entries));
}

/// The global `dict`, which is a class in Python.
struct DictClass : Instance {
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    if (name != "fromkeys") return std::nullopt;
    return make_callable(interpreter, "fromkeys", [](Interpreter& in, const Arguments& arguments) {
      return find_dict_method("fromkeys")(in, in.heap().dict({}), arguments);
    });
  }
  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    return make_dict(interpreter, arguments);
  }
  bool callable() const override { return true; }
  std::string type_name() const override { return "TemplateDict"; }
};

Value raise_exception(Interpreter&, const Arguments& arguments) {
  const Bound bound(arguments, "raise_exception", {"message"}, 1);
  TextBuilder message;
  message.add(bound[0]->is(Kind::text) ? bytes_of(*bound[0])
                                       : "raise_exception was called without a text");
  fail(ErrorKind::data, "{}", message.take_bytes());
}

Value strftime_now(Interpreter& interpreter, const Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", {"format"}, 1);
  return interpreter.heap().text(format_time(
      require_text(*bound[0], "the format of strftime_now()").bytes, interpreter.options().now));
}

Value make_namespace(Interpreter& interpreter, const Arguments& arguments) {
  return interpreter.make_namespace(arguments);
}

}  // namespace

std::optional<Value> find_global(Interpreter& interpreter, std::string_view name) {
  using Global = Value (*)(Interpreter&, const Arguments&);
  static constexpr std::array<std::pair<std::string_view, Global>, 6> globals = {
      {{"range", make_range},
       {"namespace", make_namespace},
       {"cycler", make_cycler},
       {"joiner", make_joiner},
       {"raise_exception", raise_exception},
       {"strftime_now", strftime_now}}};
  if (name == "dict") return interpreter.heap().instance(std::make_shared<DictClass>(), 0);
  for (const auto& [global, function] : globals) {
    if (global == name) return make_callable(interpreter, std::string(name), function);
  }
  return std::nullopt;
}

std::string format_time(const std::string& format, const std::optional<std::int64_t>& now) {
  if (format.empty()) return "";
  std::tm time{};
  const auto seconds = static_cast<std::time_t>(now.value_or(std::time(nullptr)));
  if (now) {
    gmtime_r(&seconds, &time);
  } else {
    localtime_r(&seconds, &time);
  }
  if (format.size() > 1000)
    fail(ErrorKind::data, "the format of strftime_now() is longer than 1000 bytes");
  std::string buffer(64 * 1024, '\0');  // no directive writes more than 64 bytes a byte of it
  buffer.resize(std::strftime(buffer.data(), buffer.size(), format.c_str(), &time));
  return buffer;
}

Bound::Bound(const Arguments& arguments, std::string_view function,
             std::initializer_list<std::string_view> names, std::size_t required)
    : values_(names.size(), nullptr), names_(names) {
  if (arguments.positional.size() > names.size()) {
    fail(ErrorKind::data, "{}() takes at most {} argument(s), and {} were given", function,
         names.size(), arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i)
    values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) fail(ErrorKind::data, "{}() has no argument '{}'", function, name);
    const auto index = static_cast<std::size_t>(found - names_.begin());
    if (values_[index] != nullptr)
      fail(ErrorKind::data, "{}() got two values for '{}'", function, name);
    values_[index] = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr)
      fail(ErrorKind::data, "{}() misses the argument '{}'", function, names_[i]);
  }
}

bool Bound::flag(std::size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : is_true(*values_[index]);
}

std::int64_t Bound::whole(std::size_t index, std::int64_t otherwise) const {
  return values_[index] == nullptr
             ? otherwise
             : require_whole(*values_[index], "'" + std::string(names_[index]) + "'");
}

std::string Bound::text(std::size_t index, std::string_view otherwise) const {
  if (values_[index] == nullptr) return std::string(otherwise);
  return require_text(*values_[index], "'" + std::string(names_[index]) + "'").bytes;
}

bool Bound::is_none(std::size_t index) const {
  return values_[index] == nullptr || values_[index]->is(Kind::none);
}

}  // namespace finetune::jinja
