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

Value strip_sides(In in, Self self, Args arguments, std::string_view name, bool left, bool right) {
  const Bound bound(arguments, name, {"chars"});
  std::optional<std::string> characters;
  if (!bound.is_none(0)) characters = bound.text(0, "");
  if (characters && text_of(self).bytes.size() > 0)
    in.budget().work(characters->size() * bytes_of(self).size());
  return strip(in.heap(), self, characters, left, right);
}

Value method_strip(In in, Self self, Args arguments) {
  return strip_sides(in, self, arguments, "strip", true, true);
}
Value method_lstrip(In in, Self self, Args arguments) {
  return strip_sides(in, self, arguments, "lstrip", true, false);
}
Value method_rstrip(In in, Self self, Args arguments) {
  return strip_sides(in, self, arguments, "rstrip", false, true);
}

/// Words between white space, at most `max_splits` + 1, counted from the left or the right.
std::vector<Value> split_words(const Heap& heap, Self self, std::int64_t max_splits,
                               bool from_right) {
  const std::string& bytes = bytes_of(self);
  heap.work(bytes.size());
  std::vector<std::pair<std::size_t, std::size_t>> words;
  for (std::size_t at = skip_space(bytes, 0); at < bytes.size(); at = skip_space(bytes, at)) {
    const std::size_t begin = at;
    while (at < bytes.size()) {
      std::size_t next = at;
      if (is_python_space(next_code_point(bytes, next))) break;
      at = next;
    }
    words.emplace_back(begin, at);
  }
  const auto keep = static_cast<std::size_t>(max_splits + 1);
  if (max_splits >= 0 && words.size() >= keep) {  // the rest stays as it is on its far side
    if (from_right) {
      words.erase(words.begin(), words.end() - static_cast<std::ptrdiff_t>(keep));
      words.front().first = 0;
    } else {
      words.resize(keep);
      words.back().second = bytes.size();
    }
  }
  std::vector<Value> parts;
  for (const auto& [begin, end] : words) parts.push_back(slice(heap, self, begin, end));
  return parts;
}

std::vector<Value> split_right(const Heap& heap, Self self, const std::string& separator,
                               std::int64_t max_splits) {
  if (max_splits < 0) return split(heap, self, separator, -1);
  const std::string& bytes = bytes_of(self);
  heap.work(bytes.size());
  std::vector<Value> parts;
  std::size_t end = bytes.size();
  while (static_cast<std::int64_t>(parts.size()) < max_splits && end >= separator.size()) {
    const std::size_t found = bytes.rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    parts.push_back(slice(heap, self, found + separator.size(), end));
    end = found;
  }
  parts.push_back(slice(heap, self, 0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split_by(In in, Self self, Args arguments, bool from_right) {
  const Bound bound(arguments, from_right ? "rsplit" : "split", {"sep", "maxsplit"});
  const std::int64_t max_splits = bound.whole(1, -1);
  const Heap& heap = in.heap();
  if (bound.is_none(0)) return heap.list(split_words(heap, self, max_splits, from_right));
  const std::string separator = bound.text(0, "");
  if (separator.empty()) fail(ErrorKind::data, "empty separator");
  return heap.list(from_right ? split_right(heap, self, separator, max_splits)
                              : split(heap, self, separator, max_splits));
}

Value method_split(In in, Self self, Args arguments) {
  return split_by(in, self, arguments, false);
}
Value method_rsplit(In in, Self self, Args arguments) {
  return split_by(in, self, arguments, true);
}

Value method_splitlines(In in, Self self, Args arguments) {
  const Bound bound(arguments, "splitlines", {"keepends"});
  const std::string& bytes = bytes_of(self);
  in.budget().work(bytes.size());
  std::vector<Value> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t stop = at;
    const char32_t c = next_code_point(bytes, at);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && at < bytes.size() && bytes[at] == '\n') ++at;
    lines.push_back(slice(in.heap(), self, begin, bound.flag(0, false) ? at : stop));
    begin = at;
  }
  if (begin < bytes.size()) lines.push_back(slice(in.heap(), self, begin, bytes.size()));
  return in.heap().list(std::move(lines));
}

Value method_partition(In in, Self self, Args arguments, bool from_right) {
  const Bound bound(arguments, from_right ? "rpartition" : "partition", {"sep"}, 1);
  const std::string separator = bound.text(0, "");
  if (separator.empty()) fail(ErrorKind::data, "empty separator");
  const std::string& bytes = bytes_of(self);
  const Heap& heap = in.heap();
  heap.work(bytes.size());
  const std::size_t at = from_right ? bytes.rfind(separator) : bytes.find(separator);
  const Value empty = heap.text("");
  if (at == std::string::npos)
    return heap.tuple(from_right ? std::vector{empty, empty, self}
                                 : std::vector{self, empty, empty});
  const std::size_t after = at + separator.size();
  return heap.tuple({slice(heap, self, 0, at), slice(heap, self, at, after),
                     slice(heap, self, after, bytes.size())});
}

Value method_lpartition(In in, Self self, Args arguments) {
  return method_partition(in, self, arguments, false);
}
Value method_rpartition(In in, Self self, Args arguments) {
  return method_partition(in, self, arguments, true);
}

Value method_upper(In in, Self self, Args arguments) {
  const Bound bound(arguments, "upper", {});
  return map_code_points(in.heap(), self,
                         [](char32_t c, std::string& out) { append_upper(out, c); });
}

Value method_lower(In in, Self self, Args arguments) {
  const Bound bound(arguments, "lower", {});
  return map_code_points(in.heap(), self,
                         [](char32_t c, std::string& out) { append_lower(out, c); });
}

Value method_swapcase(In in, Self self, Args arguments) {
  const Bound bound(arguments, "swapcase", {});
  return map_code_points(in.heap(), self, [](char32_t c, std::string& out) {
    if (is_upper(c)) {
      append_lower(out, c);
    } else {
      append_upper(out, c);
    }
  });
}

Value method_capitalize(In in, Self self, Args arguments) {
  const Bound bound(arguments, "capitalize", {});
  bool first = true;
  return map_code_points(in.heap(), self, [&](char32_t c, std::string& out) {
    if (std::exchange(first, false)) {
      append_title(out, c);
    } else {
      append_lower(out, c);
    }
  });
}

Value method_title(In in, Self self, Args arguments) {
  const Bound bound(arguments, "title", {});
  bool inside = false;
  return map_code_points(in.heap(), self, [&](char32_t c, std::string& out) {
    if (inside) {
      append_lower(out, c);
    } else {
      append_title(out, c);
    }
    inside = is_cased(c);
  });
}

Value method_replace(In in, Self self, Args arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  Value with = *bound[1];
  require_text(with, "'new'");
  if (text_of(self).markup) with = escape(in.heap(), with);
  return replace(in.heap(), self, bound.text(0, ""), text_of(with), bound.whole(2, -1));
}

Value method_join(In in, Self self, Args arguments) {
  const Bound bound(arguments, "join", {"iterable"}, 1);
  TextBuilder builder;
  std::size_t index = 0;
  for (const Value& item : in.iterate(*bound[0])) {
    if (!item.is(Kind::text)) {
      fail(ErrorKind::data, "sequence item {}: expected str instance, {} found", index,
           type_name(item));
    }
    if (index++ > 0) builder.add(text_of(self));
    builder.add(text_of(text_of(self).markup ? escape(in.heap(), item) : item));
  }
  return builder.finish(in.heap(), text_of(self).markup);
}

Value method_format(In in, Self self, Args arguments) { return format_braces(in, self, arguments); }

/// The text between `left` and `right` fill characters.
Value pad(In in, Self self, std::int64_t left, std::int64_t right, const std::string& fill) {
  if (left <= 0 && right <= 0) return self;
  TextBuilder builder;
  builder.add(text_of(repeat(in.heap(), in.heap().text(fill), left)));
  builder.add(text_of(self));
  builder.add(text_of(repeat(in.heap(), in.heap().text(fill), right)));
  return builder.finish(in.heap(), text_of(self).markup);
}

Value justify(In in, Self self, Args arguments, std::string_view name) {
  const Bound bound(arguments, name, {"width", "fillchar"}, 1);
  const std::string fill = bound.text(1, " ");
  if (count_code_points(fill) != 1)
    fail(ErrorKind::data, "The fill character must be exactly one character long");
  const std::int64_t width = bound.whole(0, 0);
  const std::int64_t missing = width - static_cast<std::int64_t>(count_code_points(bytes_of(self)));
  if (missing <= 0) return self;
  // As Python: the odd one goes to the left where the width is odd too.
  const std::int64_t left = name == "center"  ? missing / 2 + (missing & width & 1)
                            : name == "rjust" ? missing
                                              : 0;
  return pad(in, self, left, missing - left, fill);
}

Value method_center(In in, Self self, Args arguments) {
  return justify(in, self, arguments, "center");
}
Value method_ljust(In in, Self self, Args arguments) {
  return justify(in, self, arguments, "ljust");
}
Value method_rjust(In in, Self self, Args arguments) {
  return justify(in, self, arguments, "rjust");
}

Value method_zfill(In in, Self self, Args arguments) {
  const Bound bound(arguments, "zfill", {"width"}, 1);
  const std::string& bytes = bytes_of(self);
  const std::int64_t missing =
      bound.whole(0, 0) - static_cast<std::int64_t>(count_code_points(bytes));
  if (missing <= 0) return self;
  const std::size_t sign = !bytes.empty() && (bytes[0] == '-' || bytes[0] == '+') ? 1 : 0;
  TextBuilder builder;
  builder.add(text_of(self), 0, sign);
  builder.add(text_of(repeat(in.heap(), in.heap().text("0"), missing)));
  builder.add(text_of(self), sign, bytes.size());
  return builder.finish(in.heap());
}

Value method_expandtabs(In in, Self self, Args arguments) {
  const Bound bound(arguments, "expandtabs", {"tabsize"});
  const std::int64_t size = bound.whole(0, 8);
  std::int64_t column = 0;
  if (size > 1000) fail(ErrorKind::data, "tabs of more than 1000 columns are not supported");
  return map_code_points(in.heap(), self, [&](char32_t c, std::string& out) {
    if (c == '\t') {
      const std::int64_t spaces = size > 0 ? size - column % size : 0;
      out.append(static_cast<std::size_t>(spaces), ' ');
      column += spaces;
      return;
    }
    append_utf8(out, c);
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  });
}

Value remove_affix(In in, Self self, Args arguments, bool prefix) {
  const Bound bound(arguments, prefix ? "removeprefix" : "removesuffix", {"affix"}, 1);
  const std::string affix = bound.text(0, "");
  const std::string& bytes = bytes_of(self);
  if (prefix ? !bytes.starts_with(affix) : !bytes.ends_with(affix)) return self;
  return prefix ? slice(in.heap(), self, affix.size(), bytes.size())
                : slice(in.heap(), self, 0, bytes.size() - affix.size());
}

Value method_removeprefix(In in, Self self, Args arguments) {
  return remove_affix(in, self, arguments, true);
}
Value method_removesuffix(In in, Self self, Args arguments) {
  return remove_affix(in, self, arguments, false);
}

}  // namespace

Function find_text_method(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> methods = {
      {"strip", method_strip},
      {"lstrip", method_lstrip},
      {"rstrip", method_rstrip},
      {"split", method_split},
      {"rsplit", method_rsplit},
      {"splitlines", method_splitlines},
      {"partition", method_lpartition},
      {"rpartition", method_rpartition},
      {"upper", method_upper},
      {"lower", method_lower},
      {"casefold", method_lower},
      {"swapcase", method_swapcase},
      {"capitalize", method_capitalize},
      {"title", method_title},
      {"replace", method_replace},
      {"join", method_join},
      {"format", method_format},
      {"center", method_center},
      {"ljust", method_ljust},
      {"rjust", method_rjust},
      {"zfill", method_zfill},
      {"expandtabs", method_expandtabs},
      {"removeprefix", method_removeprefix},
      {"removesuffix", method_removesuffix},
  };
  const auto found = methods.find(name);
  return found != methods.end() ? found->second : find_text_search_method(name);
}

}  // namespace finetune::jinja
