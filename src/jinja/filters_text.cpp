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

Value as_method(In in, Self self, std::string_view method, Args arguments) {
  return find_text_method(method)(in, in.text(self), arguments);
}

Value filter_upper(In in, Self self, Args arguments) {
  return as_method(in, self, "upper", arguments);
}
Value filter_lower(In in, Self self, Args arguments) {
  return as_method(in, self, "lower", arguments);
}
Value filter_capitalize(In in, Self self, Args arguments) {
  return as_method(in, self, "capitalize", arguments);
}
Value filter_trim(In in, Self self, Args arguments) {
  return as_method(in, self, "strip", arguments);
}

Value filter_center(In in, Self self, Args arguments) {
  const Bound bound(arguments, "center", {"width"});
  Arguments width;
  width.positional.push_back(Value::of_int(bound.whole(0, 80)));
  return as_method(in, self, "center", width);
}

/// The first letter of every word: what follows white space or one of -([{<.
Value filter_title(In in, Self self, Args arguments) {
  const Bound bound(arguments, "title", {});
  bool starts = true;
  return map_code_points(in.heap(), in.text(self), [&](char32_t c, std::string& out) {
    if (starts) {
      append_upper(out, c);
    } else {
      append_lower(out, c);
    }
    starts = is_python_space(c) || c == '-' || c == '(' || c == '[' || c == '{' || c == '<';
  });
}

Value filter_string(In in, Self self, Args arguments) {
  const Bound bound(arguments, "string", {});
  return in.text(self);
}

Value with_markup(In in, const Value& text, bool markup) {
  return in.heap().text(bytes_of(text), text_of(text).spans, markup);
}

Value filter_safe(In in, Self self, Args arguments) {
  const Bound bound(arguments, "safe", {});
  return with_markup(in, in.text(self), true);
}

Value filter_escape(In in, Self self, Args arguments) {
  const Bound bound(arguments, "escape", {});
  return escape(in.heap(), in.text(self));
}

Value filter_forceescape(In in, Self self, Args arguments) {
  const Bound bound(arguments, "forceescape", {});
  return escape(in.heap(), with_markup(in, in.text(self), false));
}

Value filter_replace(In in, Self self, Args arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  const Value with = in.text(*bound[1]);
  return replace(in.heap(), in.text(self), bytes_of(in.text(*bound[0])), text_of(with),
                 bound.is_none(2) ? -1 : bound.whole(2, -1));
}

Value filter_format(In in, Self self, Args arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    fail(ErrorKind::data, "can't handle positional and keyword arguments at the same time");
  }
  return format_percent(in, in.text(self), in.heap().tuple(arguments.positional), arguments.named);
}

Value filter_indent(In in, Self self, Args arguments) {
  const Bound bound(arguments, "indent", {"width", "first", "blank"});
  require_defined(self);
  Value indent = in.heap().text(" ");
  if (bound[0] != nullptr && bound[0]->is(Kind::text)) {
    indent = *bound[0];
  } else {
    indent = repeat(in.heap(), indent, bound.whole(0, 4));
  }
  const bool blank = bound.flag(2, false);
  const Value text = in.text(self);
  TextBuilder builder;
  if (bound.flag(1, false)) builder.add(text_of(indent));
  Arguments keep;
  keep.positional.push_back(Value::of_bool(false));
  const std::string& bytes = bytes_of(text);
  const bool ends_open = !bytes.empty() && bytes.back() != '\n';
  const Value lines = find_text_method("splitlines")(in, text, keep);
  const auto& items = items_of(lines);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) builder.add("\n");
    if (i > 0 && (blank || !bytes_of(items[i]).empty())) builder.add(text_of(indent));
    builder.add(text_of(items[i]));
  }
  if (!ends_open && !bytes.empty()) {
    builder.add("\n");
    if (blank) builder.add(text_of(indent));
  }
  return builder.finish(in.heap());
}

Value filter_truncate(In in, Self self, Args arguments) {
  const Bound bound(arguments, "truncate", {"length", "killwords", "end", "leeway"});
  const Value text = in.text(self);
  const std::string end = bound.text(2, "...");
  const std::int64_t length = bound.whole(0, 255),
                     leeway = bound.is_none(3) ? 5 : bound.whole(3, 5);
  const auto end_length = static_cast<std::int64_t>(count_code_points(end));
  if (length < end_length)
    fail(ErrorKind::data, "expected length >= {}, got {}", end_length, length);
  if (leeway < 0) fail(ErrorKind::data, "expected leeway >= 0, got {}", leeway);
  const std::vector<std::size_t> offsets = code_point_offsets(bytes_of(text));
  if (static_cast<std::int64_t>(offsets.size()) - 1 <= length + leeway) return text;
  std::size_t cut = offsets[static_cast<std::size_t>(length - end_length)];
  if (!bound.flag(1, false)) {
    const std::size_t space = std::string_view(bytes_of(text)).substr(0, cut).rfind(' ');
    if (space != std::string_view::npos) cut = space;
  }
  TextBuilder builder;
  builder.add(text_of(text), 0, cut);
  builder.add(end);
  return builder.finish(in.heap());
}

Value filter_wordcount(In in, Self self, Args arguments) {
  const Bound bound(arguments, "wordcount", {});
  const Value text = in.text(self);
  const std::string& bytes = bytes_of(text);
  std::int64_t words = 0;
  bool inside = false;
  in.budget().work(bytes.size() * 4);
  for (std::size_t at = 0; at < bytes.size();) {
    const char32_t c = next_code_point(bytes, at);
    const bool word = is_letter(c) || is_digit(c) || c == '_';
    if (word && !inside) ++words;
    inside = word;
  }
  return Value::of_int(words);
}

Value filter_striptags(In in, Self self, Args arguments) {
  const Bound bound(arguments, "striptags", {});
  const Value text = in.text(self);
  const std::string& bytes = bytes_of(text);
  TextBuilder kept;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t open = bytes.find('<', at);
    const std::size_t close = open == std::string::npos ? open : bytes.find('>', open);
    if (close == std::string::npos) {
      kept.add(text_of(text), at, bytes.size());
      break;
    }
    kept.add(text_of(text), at, open);
    at = close + 1;
  }
  const Value words = find_text_method("split")(in, kept.finish(in.heap()), {});
  Arguments list;
  list.positional.push_back(words);
  return find_text_method("join")(in, in.heap().text(" "), list);
}

void append_percent(std::string& out, std::string_view text, std::string_view kept) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos ||
                       kept.find(c) != kept.npos;
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    }
  }
}

Value filter_urlencode(In in, Self self, Args arguments) {
  const Bound bound(arguments, "urlencode", {});
  std::string out;
  if (!self.is(Kind::dict)) {
    append_percent(out, bytes_of(in.text(self)), "/");
    return in.heap().text(std::move(out));
  }
  const auto add = [&](const Value& value) {
    std::string part;
    append_percent(part, bytes_of(in.text(value)), " ");
    std::replace(part.begin(), part.end(), ' ', '+');
    out += part;
  };
  for (const auto& [key, value] : dict_of(self).entries) {
    if (!out.empty()) out += '&';
    add(key);
    out += '=';
    add(value);
  }
  return in.heap().text(std::move(out));
}

Value filter_tojson(In in, Self self, Args arguments) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (!bound.is_none(1)) {
    style.indent = bound[1]->is(Kind::text)
                       ? bytes_of(*bound[1])
                       : bytes_of(repeat(in.heap(), in.heap().text(" "), bound.whole(1, 0)));
    style.item_separator = ",";
  }
  if (!bound.is_none(2)) {
    const std::vector<Value> separators = in.iterate(*bound[2]);
    if (separators.size() != 2) fail(ErrorKind::data, "'separators' of tojson are two texts");
    style.item_separator = require_text(separators[0], "a separator").bytes;
    style.key_separator = require_text(separators[1], "a separator").bytes;
  }
  TextBuilder builder;
  add_json(builder, self, style);
  in.budget().work(builder.size() * 16);
  return builder.finish(in.heap());
}

Value filter_pprint(In in, Self self, Args arguments) {
  const Bound bound(arguments, "pprint", {});
  TextBuilder builder;
  add_repr(builder, self);
  return builder.finish(in.heap());
}

}  // namespace

Function find_text_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> filters = {
      {"upper", filter_upper},
      {"lower", filter_lower},
      {"capitalize", filter_capitalize},
      {"trim", filter_trim},
      {"title", filter_title},
      {"string", filter_string},
      {"safe", filter_safe},
      {"escape", filter_escape},
      {"e", filter_escape},
      {"forceescape", filter_forceescape},
      {"replace", filter_replace},
      {"format", filter_format},
      {"indent", filter_indent},
      {"truncate", filter_truncate},
      {"wordcount", filter_wordcount},
      {"striptags", filter_striptags},
      {"urlencode", filter_urlencode},
      {"tojson", filter_tojson},
      {"pprint", filter_pprint},
      {"center", filter_center},
  };
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

Function find_filter(std::string_view name) {
  if (const Function filter = find_sequence_filter(name)) return filter;
  if (const Function filter = find_selection_filter(name)) return filter;
  if (const Function filter = find_number_filter(name)) return filter;
  return find_text_filter(name);
}

}  // namespace finetune::jinja
