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

Value filter_length(In in, Self self, Args arguments) {
  const Bound bound(arguments, "length", {});
  switch (self.kind) {
    case Kind::undefined:
      return Value::of_int(0);
    case Kind::text:
      in.budget().work(bytes_of(self).size());
      return Value::of_int(static_cast<std::int64_t>(count_code_points(bytes_of(self))));
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
    case Kind::view:
      return Value::of_int(static_cast<std::int64_t>(items_of(self).size()));
    case Kind::dict:
      return Value::of_int(static_cast<std::int64_t>(dict_of(self).entries.size()));
    default:
      fail(ErrorKind::data, "object of type '{}' has no len()", type_name(self));
  }
}

Value filter_first(In in, Self self, Args arguments) {
  const Bound bound(arguments, "first", {});
  if (self.is(Kind::generator)) {
    ListObject& list = list_of(self);
    if (list.position < list.items.size()) return list.items[list.position++];
    return in.heap().undefined("No first item, sequence was empty.");
  }
  const std::vector<Value> items = in.iterate(self);
  return items.empty() ? in.heap().undefined("No first item, sequence was empty.") : items.front();
}

Value filter_last(In in, Self self, Args arguments) {
  const Bound bound(arguments, "last", {});
  if (self.is(Kind::generator)) fail(ErrorKind::data, "'generator' object is not reversible");
  const std::vector<Value> items = in.iterate(self);
  return items.empty() ? in.heap().undefined("No last item, sequence was empty.") : items.back();
}

Value filter_list(In in, Self self, Args arguments) {
  const Bound bound(arguments, "list", {});
  return in.heap().list(in.iterate(self));
}

Value filter_random(In in, Self self, Args arguments) { return filter_first(in, self, arguments); }

Value filter_join(In in, Self self, Args arguments) {
  const Bound bound(arguments, "join", {"d", "attribute"});
  const Value separator = bound[0] != nullptr ? in.text(*bound[0]) : in.heap().text("");
  TextBuilder builder;
  bool first = true;
  for (const Value& item : in.iterate(self)) {
    if (!std::exchange(first, false)) builder.add(text_of(separator));
    builder.add(text_of(in.text(bound.is_none(1) ? item : in.lookup(item, *bound[1]))));
  }
  return builder.finish(in.heap());
}

/// Lower case for comparing without case.
Value ignore_case(In in, const Value& value) {
  if (!value.is(Kind::text)) return value;
  return map_code_points(in.heap(), value,
                         [](char32_t c, std::string& out) { append_lower(out, c); });
}

/// What the items are compared by: an attribute ("a.b", several separated by commas), without case
/// unless asked for.
std::vector<Value> keys_of(In in, const std::vector<Value>& items, const Value* attribute,
                           bool case_sensitive, bool several) {
  std::vector<Value> paths;
  if (attribute != nullptr && !attribute->is(Kind::none)) {
    paths = several && attribute->is(Kind::text) ? split(in.heap(), *attribute, ",", -1)
                                                 : std::vector{*attribute};
  }
  std::vector<Value> keys;
  const auto fold = [&](const Value& value) {
    return case_sensitive ? value : ignore_case(in, value);
  };
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const Value& path : paths) parts.push_back(fold(in.lookup(item, path)));
    keys.push_back(paths.empty()       ? fold(item)
                   : parts.size() == 1 ? parts.front()
                                       : in.heap().list(std::move(parts)));
  }
  return keys;
}

std::vector<std::size_t> sorted_order(In in, const std::vector<Value>& keys, bool reverse) {
  std::vector<std::size_t> order(keys.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto less = [&](std::size_t a, std::size_t b) {
    in.budget().step();
    return reverse ? compare(keys[b], keys[a]) < 0 : compare(keys[a], keys[b]) < 0;
  };
  std::stable_sort(order.begin(), order.end(), less);
  return order;
}

Value filter_sort(In in, Self self, Args arguments) {
  const Bound bound(arguments, "sort", {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = in.iterate(self);
  const std::vector<Value> keys = keys_of(in, items, bound[2], bound.flag(1, false), true);
  std::vector<Value> sorted;
  for (const std::size_t i : sorted_order(in, keys, bound.flag(0, false)))
    sorted.push_back(items[i]);
  return in.heap().list(std::move(sorted));
}

Value filter_dictsort(In in, Self self, Args arguments) {
  const Bound bound(arguments, "dictsort", {"case_sensitive", "by", "reverse"});
  if (!self.is(Kind::dict))
    fail(ErrorKind::data, "'{}' object has no items to sort", type_name(self));
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value")
    fail(ErrorKind::data, "You can only sort by either \"key\" or \"value\"");
  std::vector<Value> subjects;
  const auto& entries = dict_of(self).entries;
  for (const auto& [key, value] : entries) subjects.push_back(by == "key" ? key : value);
  const std::vector<Value> keys = keys_of(in, subjects, nullptr, bound.flag(0, false), false);
  std::vector<Value> sorted;
  for (const std::size_t i : sorted_order(in, keys, bound.flag(2, false))) {
    sorted.push_back(in.heap().tuple({entries[i].first, entries[i].second}));
  }
  return in.heap().list(std::move(sorted));
}

Value filter_items(In in, Self self, Args arguments) {
  const Bound bound(arguments, "items", {});
  if (self.is(Kind::undefined)) return in.heap().generator({});
  if (!self.is(Kind::dict)) fail(ErrorKind::data, "Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict_of(self).entries)
    pairs.push_back(in.heap().tuple({key, value}));
  return in.heap().generator(std::move(pairs));
}

Value filter_unique(In in, Self self, Args arguments) {
  const Bound bound(arguments, "unique", {"case_sensitive", "attribute"});
  const std::vector<Value> items = in.iterate(self);
  const std::vector<Value> keys = keys_of(in, items, bound[1], bound.flag(0, false), false);
  std::vector<Value> kept, seen;
  for (std::size_t i = 0; i < items.size(); ++i) {
    in.budget().step(static_cast<std::int64_t>(seen.size() / 4) + 1);
    if (keys[i].is(Kind::list) || keys[i].is(Kind::dict))
      fail(ErrorKind::data, "unhashable type: '{}'", type_name(keys[i]));
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const Value& key) { return equal(key, keys[i]); }))
      continue;
    seen.push_back(keys[i]);
    kept.push_back(items[i]);
  }
  return in.heap().generator(std::move(kept));
}

Value filter_reverse(In in, Self self, Args arguments) {
  const Bound bound(arguments, "reverse", {});
  std::vector<Value> items = in.iterate(self);
  std::reverse(items.begin(), items.end());
  if (!self.is(Kind::text)) return in.heap().generator(std::move(items));
  TextBuilder builder;
  for (const Value& item : items) builder.add(text_of(item));
  return builder.finish(in.heap());
}

Value extreme(In in, Self self, Args arguments, bool largest) {
  const Bound bound(arguments, largest ? "max" : "min", {"case_sensitive", "attribute"});
  const std::vector<Value> items = in.iterate(self);
  if (items.empty()) return in.heap().undefined("No aggregated item, sequence was empty.");
  const std::vector<Value> keys = keys_of(in, items, bound[1], bound.flag(0, false), false);
  std::size_t best = 0;
  for (std::size_t i = 1; i < keys.size(); ++i) {
    if (largest ? compare(keys[i], keys[best], ">") > 0 : compare(keys[i], keys[best]) < 0)
      best = i;
  }
  return items[best];
}

Value filter_min(In in, Self self, Args arguments) { return extreme(in, self, arguments, false); }
Value filter_max(In in, Self self, Args arguments) { return extreme(in, self, arguments, true); }

Value filter_sum(In in, Self self, Args arguments) {
  const Bound bound(arguments, "sum", {"attribute", "start"});
  Value sum = bound[1] != nullptr ? *bound[1] : Value::of_int(0);
  if (sum.is(Kind::text))
    fail(ErrorKind::data, "sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : in.iterate(self)) {
    sum = apply_binary(in, "+", sum, bound.is_none(0) ? item : in.lookup(item, *bound[0]));
  }
  return sum;
}

Value filter_batch(In in, Self self, Args arguments) {
  const Bound bound(arguments, "batch", {"linecount", "fill_with"}, 1);
  const std::int64_t size = bound.whole(0, 1);
  if (size > 100'000) fail(ErrorKind::data, "batches of more than 100000 are not supported");
  std::vector<Value> batches, batch;
  for (const Value& item : in.iterate(self)) {
    if (static_cast<std::int64_t>(batch.size()) == size)
      batches.push_back(in.heap().list(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    while (!bound.is_none(1) && static_cast<std::int64_t>(batch.size()) < size)
      batch.push_back(*bound[1]);
    batches.push_back(in.heap().list(std::move(batch)));
  }
  return in.heap().generator(std::move(batches));
}

Value filter_slice(In in, Self self, Args arguments) {
  const Bound bound(arguments, "slice", {"slices", "fill_with"}, 1);
  const std::int64_t slices = bound.whole(0, 1);
  if (slices < 1 || slices > 100'000)
    fail(ErrorKind::data, "slice needs from 1 to 100000 slices, not {}", slices);
  const std::vector<Value> items = in.iterate(self);
  const auto count = static_cast<std::int64_t>(items.size());
  std::vector<Value> columns;
  std::int64_t begin = 0;
  in.budget().step(slices);
  for (std::int64_t i = 0; i < slices; ++i) {
    const bool longer = i < count % slices;
    const std::int64_t end = begin + count / slices + (longer ? 1 : 0);
    std::vector<Value> column(items.begin() + begin, items.begin() + end);
    if (!bound.is_none(1) && !longer && count % slices != 0) column.push_back(*bound[1]);
    columns.push_back(in.heap().list(std::move(column)));
    begin = end;
  }
  return in.heap().generator(std::move(columns));
}

}  // namespace

Function find_sequence_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> filters = {
      {"length", filter_length}, {"count", filter_length},      {"first", filter_first},
      {"last", filter_last},     {"list", filter_list},         {"join", filter_join},
      {"sort", filter_sort},     {"dictsort", filter_dictsort}, {"items", filter_items},
      {"unique", filter_unique}, {"reverse", filter_reverse},   {"min", filter_min},
      {"max", filter_max},       {"sum", filter_sum},           {"batch", filter_batch},
      {"slice", filter_slice},   {"random", filter_random},
  };
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace finetune::jinja
