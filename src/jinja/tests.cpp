#include "finetune/base/error.h"
#include "jinja/functions.h"

#include <unordered_map>

namespace finetune::jinja {

namespace {

using In = Interpreter&;
using Self = const Value&;
using Args = const Arguments&;

bool is_kind(Args arguments, std::string_view name, bool answer) {
  const Bound bound(arguments, name, {});
  return answer;
}

bool test_defined(In, Self self, Args a) {
  return is_kind(a, "defined", !self.is(Kind::undefined));
}
bool test_undefined(In, Self self, Args a) {
  return is_kind(a, "undefined", self.is(Kind::undefined));
}
bool test_none(In, Self self, Args a) { return is_kind(a, "none", self.is(Kind::none)); }
bool test_string(In, Self self, Args a) { return is_kind(a, "string", self.is(Kind::text)); }
bool test_number(In, Self self, Args a) { return is_kind(a, "number", self.is_number()); }
bool test_integer(In, Self self, Args a) { return is_kind(a, "integer", self.is(Kind::integer)); }
bool test_float(In, Self self, Args a) { return is_kind(a, "float", self.is(Kind::floating)); }
bool test_boolean(In, Self self, Args a) { return is_kind(a, "boolean", self.is(Kind::boolean)); }
bool test_true(In, Self self, Args a) {
  return is_kind(a, "true", self.is(Kind::boolean) && self.boolean);
}
bool test_false(In, Self self, Args a) {
  return is_kind(a, "false", self.is(Kind::boolean) && !self.boolean);
}
bool test_mapping(In, Self self, Args a) { return is_kind(a, "mapping", self.is(Kind::dict)); }
bool test_escaped(In, Self self, Args a) {
  return is_kind(a, "escaped", self.is(Kind::text) && text_of(self).markup);
}

bool test_iterable(In, Self self, Args a) {
  return is_kind(
      a, "iterable",
      self.is(Kind::text) || self.is(Kind::dict) || self.is(Kind::undefined) || self.has_items());
}

bool test_sequence(In, Self self, Args a) {
  return is_kind(a, "sequence",
                 self.is(Kind::text) || self.is(Kind::dict) || self.is(Kind::undefined) ||
                     self.is(Kind::list) || self.is(Kind::tuple) || self.is(Kind::range));
}

bool test_callable(In, Self self, Args a) {
  // Undefined has a __call__, which fails.
  return is_kind(
      a, "callable",
      self.is(Kind::undefined) || (self.is(Kind::instance) && instance_of(self).callable()));
}

bool test_odd(In in, Self self, Args a) {
  const Bound bound(a, "odd", {});
  return equal(apply_binary(in, "%", self, Value::of_int(2)), Value::of_int(1));
}

bool test_even(In in, Self self, Args a) {
  const Bound bound(a, "even", {});
  return equal(apply_binary(in, "%", self, Value::of_int(2)), Value::of_int(0));
}

bool test_divisibleby(In in, Self self, Args a) {
  const Bound bound(a, "divisibleby", {"num"}, 1);
  return equal(apply_binary(in, "%", self, *bound[0]), Value::of_int(0));
}

bool test_lower(In in, Self self, Args a) {
  const Bound bound(a, "lower", {});
  return is_true(find_text_method("islower")(in, in.text(self), {}));
}

bool test_upper(In in, Self self, Args a) {
  const Bound bound(a, "upper", {});
  return is_true(find_text_method("isupper")(in, in.text(self), {}));
}

bool test_sameas(In, Self self, Args a) {
  const Bound bound(a, "sameas", {"other"}, 1);
  const Value& other = *bound[0];
  if (self.kind != other.kind) return false;
  // Small numbers and equal literals are one object in Python.
  if (!self.object || self.is(Kind::text)) return equal(self, other);
  return self.object == other.object;
}

bool test_in(In in, Self self, Args a) {
  const Bound bound(a, "in", {"seq"}, 1);
  return contains(in, *bound[0], self);
}

bool test_eq(In, Self self, Args a) { return equal(self, *Bound(a, "eq", {"other"}, 1)[0]); }
bool test_ne(In, Self self, Args a) { return !equal(self, *Bound(a, "ne", {"other"}, 1)[0]); }
bool test_lt(In, Self self, Args a) {
  return compare(self, *Bound(a, "lt", {"other"}, 1)[0], "<") < 0;
}
bool test_le(In, Self self, Args a) {
  return compare(self, *Bound(a, "le", {"other"}, 1)[0], "<=") <= 0;
}
bool test_gt(In, Self self, Args a) {
  return compare(self, *Bound(a, "gt", {"other"}, 1)[0], ">") > 0;
}
bool test_ge(In, Self self, Args a) {
  return compare(self, *Bound(a, "ge", {"other"}, 1)[0], ">=") >= 0;
}

bool test_filter(In, Self self, Args a) {
  return is_kind(a, "filter", self.is(Kind::text) && find_filter(bytes_of(self)) != nullptr);
}

bool test_test(In, Self self, Args a) {
  return is_kind(a, "test", self.is(Kind::text) && find_test(bytes_of(self)) != nullptr);
}

}  // namespace

Test find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, Test> tests = {
      {"defined", test_defined},
      {"undefined", test_undefined},
      {"none", test_none},
      {"string", test_string},
      {"number", test_number},
      {"integer", test_integer},
      {"float", test_float},
      {"boolean", test_boolean},
      {"true", test_true},
      {"false", test_false},
      {"mapping", test_mapping},
      {"escaped", test_escaped},
      {"iterable", test_iterable},
      {"sequence", test_sequence},
      {"callable", test_callable},
      {"odd", test_odd},
      {"even", test_even},
      {"divisibleby", test_divisibleby},
      {"lower", test_lower},
      {"upper", test_upper},
      {"sameas", test_sameas},
      {"in", test_in},
      {"eq", test_eq},
      {"equalto", test_eq},
      {"==", test_eq},
      {"ne", test_ne},
      {"!=", test_ne},
      {"lt", test_lt},
      {"lessthan", test_lt},
      {"<", test_lt},
      {"le", test_le},
      {"<=", test_le},
      {"gt", test_gt},
      {"greaterthan", test_gt},
      {">", test_gt},
      {"ge", test_ge},
      {">=", test_ge},
      {"filter", test_filter},
      {"test", test_test},
  };
  const auto found = tests.find(name);
  return found == tests.end() ? nullptr : found->second;
}

}  // namespace finetune::jinja
