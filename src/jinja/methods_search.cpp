#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <unordered_map>

namespace finetune::jinja {

namespace {

using In = Interpreter&;
using Self = const Value&;
using Args = const Arguments&;

/// The bytes that the arguments start and end (code points, as in a slice) leave.
struct Range {
  std::size_t begin = 0, end = 0;
  bool valid = true;  ///< false where start is behind end
};

Range range_of(In in, Self self, const Bound& bound) {
  const std::string& bytes = bytes_of(self);
  in.budget().work(bytes.size());
  if (bound.is_none(1) && bound.is_none(2)) return {0, bytes.size(), true};
  in.budget().work(bytes.size() * 8);
  const std::vector<std::size_t> offsets = code_point_offsets(bytes);
  const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto place = [&](std::size_t argument, std::int64_t otherwise) {
    std::int64_t index = bound.is_none(argument) ? otherwise : bound.whole(argument, otherwise);
    if (index < 0) index = std::max<std::int64_t>(0, index < -count ? 0 : index + count);
    return index;
  };
  const std::int64_t begin = place(1, 0), end = std::min(place(2, count), count);
  if (begin > end) return {0, 0, false};
  return {offsets[static_cast<std::size_t>(begin)], offsets[static_cast<std::size_t>(end)], true};
}

Value affix(In in, Self self, Args arguments, bool prefix) {
  const Bound bound(arguments, prefix ? "startswith" : "endswith", {"affix", "start", "end"}, 1);
  const Range range = range_of(in, self, bound);
  if (!range.valid) return Value::of_bool(false);
  const std::string_view text =
      std::string_view(bytes_of(self)).substr(range.begin, range.end - range.begin);
  const auto fits = [&](const Value& value) {
    const std::string& part = require_text(value, "the argument of startswith or endswith").bytes;
    return prefix ? text.starts_with(part) : text.ends_with(part);
  };
  if (!bound[0]->is(Kind::tuple)) return Value::of_bool(fits(*bound[0]));
  return Value::of_bool(std::any_of(items_of(*bound[0]).begin(), items_of(*bound[0]).end(), fits));
}

Value method_startswith(In in, Self self, Args arguments) {
  return affix(in, self, arguments, true);
}
Value method_endswith(In in, Self self, Args arguments) {
  return affix(in, self, arguments, false);
}

/// The code point where `sub` is found, or -1.
std::int64_t find_in(In in, Self self, Args arguments, std::string_view name, bool last) {
  const Bound bound(arguments, name, {"sub", "start", "end"}, 1);
  const Range range = range_of(in, self, bound);
  if (!range.valid) return -1;
  const std::string sub = bound.text(0, "");
  const std::string_view text = std::string_view(bytes_of(self)).substr(0, range.end);
  const std::size_t found = last ? text.rfind(sub) : text.find(sub, range.begin);
  if (found == text.npos || found < range.begin) return -1;
  return static_cast<std::int64_t>(count_code_points(text.substr(0, found)));
}

Value method_find(In in, Self self, Args arguments) {
  return Value::of_int(find_in(in, self, arguments, "find", false));
}
Value method_rfind(In in, Self self, Args arguments) {
  return Value::of_int(find_in(in, self, arguments, "rfind", true));
}

Value require_found(std::int64_t found) {
  if (found < 0) fail(ErrorKind::data, "substring not found");
  return Value::of_int(found);
}

Value method_index(In in, Self self, Args arguments) {
  return require_found(find_in(in, self, arguments, "index", false));
}
Value method_rindex(In in, Self self, Args arguments) {
  return require_found(find_in(in, self, arguments, "rindex", true));
}

Value method_count(In in, Self self, Args arguments) {
  const Bound bound(arguments, "count", {"sub", "start", "end"}, 1);
  const Range range = range_of(in, self, bound);
  if (!range.valid) return Value::of_int(0);
  const std::string sub = bound.text(0, "");
  const std::string_view text =
      std::string_view(bytes_of(self)).substr(range.begin, range.end - range.begin);
  if (sub.empty()) return Value::of_int(static_cast<std::int64_t>(count_code_points(text)) + 1);
  std::int64_t count = 0;
  for (std::size_t at = text.find(sub); at != text.npos; at = text.find(sub, at + sub.size()))
    ++count;
  return Value::of_int(count);
}

template <typename Fits>
Value all_of(In in, Self self, Args arguments, const Fits& fits) {
  const Bound bound(arguments, "is...", {});
  const std::string& bytes = bytes_of(self);
  in.budget().work(bytes.size() * 4);
  for (std::size_t at = 0; at < bytes.size();) {
    if (!fits(next_code_point(bytes, at))) return Value::of_bool(false);
  }
  return Value::of_bool(!bytes.empty());
}

Value method_isdigit(In in, Self self, Args arguments) {
  return all_of(in, self, arguments, is_digit);
}
Value method_isalpha(In in, Self self, Args arguments) {
  return all_of(in, self, arguments, is_letter);
}
Value method_isspace(In in, Self self, Args arguments) {
  return all_of(in, self, arguments, is_python_space);
}
Value method_isprintable(In in, Self self, Args arguments) {
  return bytes_of(self).empty() ? Value::of_bool(true) : all_of(in, self, arguments, is_printable);
}
Value method_isascii(In in, Self self, Args arguments) {
  return bytes_of(self).empty() ? Value::of_bool(true)
                                : all_of(in, self, arguments, [](char32_t c) { return c < 0x80; });
}
Value method_isalnum(In in, Self self, Args arguments) {
  return all_of(in, self, arguments, [](char32_t c) { return is_letter(c) || is_digit(c); });
}
Value method_isidentifier(In in, Self self, Args arguments) {
  bool first = true;
  return all_of(in, self, arguments, [&](char32_t c) {
    return c == '_' || is_letter(c) || (!std::exchange(first, false) && is_digit(c));
  });
}

/// True where there is a cased character and none of the other case.
Value only_case(In in, Self self, bool upper) {
  const std::string& bytes = bytes_of(self);
  in.budget().work(bytes.size() * 4);
  bool any = false;
  for (std::size_t at = 0; at < bytes.size();) {
    const char32_t c = next_code_point(bytes, at);
    if (!is_cased(c)) continue;
    if (upper ? !is_upper(c) : !is_lower(c)) return Value::of_bool(false);
    any = true;
  }
  return Value::of_bool(any);
}

Value method_isupper(In in, Self self, Args) { return only_case(in, self, true); }
Value method_islower(In in, Self self, Args) { return only_case(in, self, false); }

Value method_istitle(In in, Self self, Args) {
  const std::string& bytes = bytes_of(self);
  in.budget().work(bytes.size() * 4);
  bool any = false, inside = false;
  for (std::size_t at = 0; at < bytes.size();) {
    const char32_t c = next_code_point(bytes, at);
    if (is_cased(c)) {
      if (is_lower(c) != inside) return Value::of_bool(false);
      any = true;
    }
    inside = is_cased(c);
  }
  return Value::of_bool(any);
}

}  // namespace

Function find_text_search_method(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> methods = {
      {"startswith", method_startswith},
      {"endswith", method_endswith},
      {"find", method_find},
      {"rfind", method_rfind},
      {"index", method_index},
      {"rindex", method_rindex},
      {"count", method_count},
      {"isdigit", method_isdigit},
      {"isdecimal", method_isdigit},
      {"isnumeric", method_isdigit},
      {"isalpha", method_isalpha},
      {"isspace", method_isspace},
      {"isalnum", method_isalnum},
      {"isupper", method_isupper},
      {"islower", method_islower},
      {"istitle", method_istitle},
      {"isascii", method_isascii},
      {"isprintable", method_isprintable},
      {"isidentifier", method_isidentifier},
  };
  const auto found = methods.find(name);
  return found == methods.end() ? nullptr : found->second;
}

}  // namespace finetune::jinja
