#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <cmath>

namespace finetune::jinja {

namespace {

[[noreturn]] void fail_operands(std::string_view symbol, const Value& a, const Value& b) {
  fail(ErrorKind::data, "unsupported operand type(s) for {}: '{}' and '{}'", symbol, type_name(a),
       type_name(b));
}

[[noreturn]] void fail_overflow() { fail(ErrorKind::data, "an integer does not fit into 64 bits"); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorKind::data, "division by zero");
  if (b == -1) {
    std::int64_t result = 0;
    if (__builtin_sub_overflow(std::int64_t{0}, a, &result)) fail_overflow();
    return result;
  }
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value whole_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail(ErrorKind::data, "0 cannot be raised to a negative power");
    return Value::of_float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  if (base == 0 || base == 1 || base == -1) {
    return Value::of_int(exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base);
  }
  for (; exponent > 0; --exponent) {  // overflows soon
    if (__builtin_mul_overflow(result, base, &result)) fail_overflow();
  }
  return Value::of_int(result);
}

Value whole_arithmetic(char symbol, bool twice, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  switch (symbol) {
    case '+':
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case '-':
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case '*':
      if (twice) return whole_power(a, b);
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case '/':
      if (twice) return Value::of_int(floor_divide(a, b));
      if (b == 0) fail(ErrorKind::data, "division by zero");
      return Value::of_float(static_cast<double>(a) / static_cast<double>(b));
    default:
      return Value::of_int(b == -1 ? 0 : a - floor_divide(a, b) * b);
  }
  if (overflow) fail_overflow();
  return Value::of_int(result);
}

double float_modulo(double a, double b) {
  if (b == 0) fail(ErrorKind::data, "float modulo by zero");
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return rest == 0 ? std::copysign(0.0, b) : rest;
}

Value float_arithmetic(char symbol, bool twice, double a, double b) {
  switch (symbol) {
    case '+':
      return Value::of_float(a + b);
    case '-':
      return Value::of_float(a - b);
    case '*':
      if (twice && a < 0 && b != std::floor(b))
        fail(ErrorKind::data, "a complex number is not supported");
      if (twice && a == 0 && b < 0)
        fail(ErrorKind::data, "0.0 cannot be raised to a negative power");
      return Value::of_float(twice ? std::pow(a, b) : a * b);
    case '/':
      if (b == 0) fail(ErrorKind::data, "division by zero");
      return Value::of_float(twice ? std::floor((a - float_modulo(a, b)) / b + 0.5) : a / b);
    default:
      return Value::of_float(float_modulo(a, b));
  }
}

bool is_sequence(const Value& value) { return value.is(Kind::list) || value.is(Kind::tuple); }

Value repeat_items(Interpreter& interpreter, const Value& value, std::int64_t count) {
  const auto& items = items_of(value);
  std::vector<Value> repeated;
  for (std::int64_t i = 0; i < count && !items.empty(); ++i) {
    interpreter.budget().step(static_cast<std::int64_t>(items.size()));
    repeated.insert(repeated.end(), items.begin(), items.end());
  }
  return interpreter.heap().list(std::move(repeated), value.kind);
}

/// What + and * do with texts, lists and tuples; nothing for other operands.
std::optional<Value> sequence_arithmetic(Interpreter& interpreter, char symbol, const Value& a,
                                         const Value& b) {
  const Heap& heap = interpreter.heap();
  if (symbol == '+') {
    if (a.is(Kind::text) && b.is(Kind::text)) return concatenate(heap, a, b);
    if (a.is(Kind::text))
      fail(ErrorKind::data, "can only concatenate str (not \"{}\") to str", type_name(b));
    if (!is_sequence(a) || a.kind != b.kind) return std::nullopt;
    std::vector<Value> items = items_of(a);
    items.insert(items.end(), items_of(b).begin(), items_of(b).end());
    return heap.list(std::move(items), a.kind);
  }
  if (symbol != '*') return std::nullopt;
  const Value& sequence = b.is_whole() ? a : b;
  const Value& count = b.is_whole() ? b : a;
  if (!count.is_whole()) return std::nullopt;
  if (sequence.is(Kind::text)) return repeat(heap, sequence, count.whole());
  if (is_sequence(sequence)) return repeat_items(interpreter, sequence, count.whole());
  return std::nullopt;
}

}  // namespace

Value apply_binary(Interpreter& interpreter, std::string_view symbol, const Value& a,
                   const Value& b) {
  if (symbol == "%" && a.is(Kind::text)) return format_percent(interpreter, a, b);
  require_defined(a);
  require_defined(b);
  const bool twice = symbol.size() == 2;
  if (a.is_whole() && b.is_whole()) return whole_arithmetic(symbol[0], twice, a.whole(), b.whole());
  if (a.is_number() && b.is_number())
    return float_arithmetic(symbol[0], twice, a.number(), b.number());
  if (!twice) {
    if (auto result = sequence_arithmetic(interpreter, symbol[0], a, b)) return std::move(*result);
  }
  fail_operands(symbol, a, b);
}

Value apply_unary(std::string_view symbol, const Value& value) {
  require_defined(value);
  if (!value.is_number())
    fail(ErrorKind::data, "bad operand type for unary {}: '{}'", symbol, type_name(value));
  if (value.is(Kind::floating))
    return Value::of_float(symbol == "-" ? -value.floating : value.floating);
  return symbol == "-" ? whole_arithmetic('-', false, 0, value.whole())
                       : Value::of_int(value.whole());
}

bool contains(Interpreter& interpreter, const Value& container, const Value& needle) {
  switch (container.kind) {
    case Kind::undefined:
      return false;
    case Kind::text:
      if (!needle.is(Kind::text)) {
        require_defined(needle);
        fail(ErrorKind::data, "'in <string>' requires string as left operand, not {}",
             type_name(needle));
      }
      interpreter.budget().work(bytes_of(container).size());
      return bytes_of(container).find(bytes_of(needle)) != std::string::npos;
    case Kind::dict:
      if (needle.is(Kind::list) || needle.is(Kind::dict))
        fail(ErrorKind::data, "unhashable type: '{}'", type_name(needle));
      interpreter.budget().work(dict_of(container).entries.size());
      return dict_of(container).find(needle) != nullptr;
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
    case Kind::view:
    case Kind::generator: {
      const std::vector<Value> items = interpreter.iterate(container);
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& item) { return equal(item, needle); });
    }
    default:
      fail(ErrorKind::data, "argument of type '{}' is not iterable", type_name(container));
  }
}

namespace {

/// Python's rule for the bounds of a slice over `count` elements: the indices taken.
std::vector<std::size_t> slice_indices(std::int64_t count, const Value& begin, const Value& end,
                                       const Value& step) {
  const std::int64_t stride = step.is(Kind::none) ? 1 : require_whole(step, "the step of a slice");
  if (stride == 0) fail(ErrorKind::data, "slice step cannot be zero");
  const std::int64_t lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? count : count - 1;
  const auto bound = [&](const Value& value, std::int64_t otherwise) {
    if (value.is(Kind::none)) return otherwise;
    std::int64_t index = require_whole(value, "the bound of a slice");
    if (index < 0) index = index < -count ? lowest : index + count;
    return std::clamp(index, lowest, highest);
  };
  const std::int64_t first = bound(begin, stride > 0 ? lowest : highest);
  const std::int64_t last = bound(end, stride > 0 ? highest : lowest);
  std::vector<std::size_t> indices;
  for (std::int64_t i = first; stride > 0 ? i < last : i > last;) {
    indices.push_back(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  return indices;
}

std::string range_label(const std::vector<Value>& numbers) {
  if (numbers.empty()) return "range(0, 0)";
  const std::int64_t step = numbers.size() > 1 ? numbers[1].integer - numbers[0].integer : 1;
  const std::string bounds =
      fmt::format("range({}, {}", numbers.front().integer, numbers.back().integer + step);
  return step == 1 ? bounds + ")" : fmt::format("{}, {})", bounds, step);
}

}  // namespace

Value take_slice(Interpreter& interpreter, const Value& container, const Value& begin,
                 const Value& end, const Value& step) {
  require_defined(container);
  const Heap& heap = interpreter.heap();
  if (container.is(Kind::text)) {
    heap.work(bytes_of(container).size() * 16);
    const std::vector<std::size_t> offsets = code_point_offsets(bytes_of(container));
    const auto indices =
        slice_indices(static_cast<std::int64_t>(offsets.size()) - 1, begin, end, step);
    if (indices.empty()) return heap.text("");
    if (step.is(Kind::none) || (step.is_whole() && step.whole() == 1)) {
      return slice(heap, container, offsets[indices.front()], offsets[indices.back() + 1]);
    }
    TextBuilder builder;
    for (const std::size_t i : indices) builder.add(text_of(container), offsets[i], offsets[i + 1]);
    return builder.finish(heap, text_of(container).markup);
  }
  if (!is_sequence(container) && !container.is(Kind::range)) {
    fail(ErrorKind::data, "'{}' object is not subscriptable by a slice", type_name(container));
  }
  const auto& items = items_of(container);
  interpreter.budget().step(1 + static_cast<std::int64_t>(items.size() / 16));
  std::vector<Value> taken;
  for (const std::size_t i :
       slice_indices(static_cast<std::int64_t>(items.size()), begin, end, step)) {
    taken.push_back(items[i]);
  }
  std::string label = container.is(Kind::range) ? range_label(taken) : "";
  return heap.list(std::move(taken), container.kind, std::move(label), list_of(container).source);
}

}  // namespace finetune::jinja
