#pragma once

#include "jinja/interpreter.h"

#include <initializer_list>

namespace finetune::jinja {

/// A filter, or a method of a string, list or dictionary: `self` is what it is applied to.
using Function = Value (*)(Interpreter& interpreter, const Value& self, const Arguments& arguments);
using Test = bool (*)(Interpreter& interpreter, const Value& self, const Arguments& arguments);

/// nullptr where there is none of that name.
Function find_filter(std::string_view name);
Test find_test(std::string_view name);
Function find_text_method(std::string_view name);
Function find_dict_method(std::string_view name);
Function find_list_method(std::string_view name, bool is_tuple);

/// The tables that these look in, by topic.
Function find_sequence_filter(std::string_view name);
Function find_selection_filter(std::string_view name);
Function find_text_filter(std::string_view name);
Function find_number_filter(std::string_view name);
Function find_text_search_method(std::string_view name);

/// The global functions: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
std::optional<Value> find_global(Interpreter& interpreter, std::string_view name);

/// The label of the tuples of groupby, whose parts also have the names grouper and list.
inline constexpr const char* kGroupLabel = "group";

/// The arguments of a call by the names of its parameters; absent ones are null. Throws Error(data)
/// for more than there are, unknown names, and too few.
class Bound {
 public:
  Bound(const Arguments& arguments, std::string_view function,
        std::initializer_list<std::string_view> names, std::size_t required = 0);
  const Value* operator[](std::size_t index) const { return values_[index]; }
  /// The value, or the default where it is absent.
  bool flag(std::size_t index, bool otherwise) const;
  std::int64_t whole(std::size_t index, std::int64_t otherwise) const;
  std::string text(std::size_t index, std::string_view otherwise) const;
  bool is_none(std::size_t index) const;  ///< absent or none

 private:
  std::vector<const Value*> values_;
  std::vector<std::string_view> names_;
};

/// Python's "%" with a string on the left.
Value format_percent(Interpreter& interpreter, const Value& format, const Value& values,
                     const std::vector<std::pair<std::string, Value>>& named = {});
/// str.format.
Value format_braces(Interpreter& interpreter, const Value& format, const Arguments& arguments);
/// A value written as a format specification such as ">10" or "05.2f" says.
Value format_value(Interpreter& interpreter, const Value& value, std::string_view specification);

/// Python's +, -, *, /, //, %, **.
Value apply_binary(Interpreter& interpreter, std::string_view symbol, const Value& a,
                   const Value& b);
Value apply_unary(std::string_view symbol, const Value& value);
/// Python's `needle in container`.
bool contains(Interpreter& interpreter, const Value& container, const Value& needle);
/// container[begin:end:step]; absent bounds are none.
Value take_slice(Interpreter& interpreter, const Value& container, const Value& begin,
                 const Value& end, const Value& step);
/// What strftime writes: of `now` in seconds since 1970 as UTC, or of the clock as local time.
std::string format_time(const std::string& format, const std::optional<std::int64_t>& now);

}  // namespace finetune::jinja
