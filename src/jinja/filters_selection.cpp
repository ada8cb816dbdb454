#include "finetune/base/error.h"
#include "jinja/functions.h"

#include <algorithm>
#include <unordered_map>

namespace finetune::jinja {

namespace {

using In = Interpreter&;
using Self = const Value&;
using Args = const Arguments&;

/// The items to choose from; anything that is false has none, also where it cannot be iterated.
std::vector<Value> items_to_choose(In in, Self self) {
  return is_true(self) ? in.iterate(self) : std::vector<Value>();
}

/// The arguments from the `first` positional one on.
Arguments rest_of(Args arguments, std::size_t first) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                            first, arguments.positional.size())),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value filter_map(In in, Self self, Args arguments) {
  std::vector<Value> mapped;
  const std::vector<Value> items = items_to_choose(in, self);
  const Value* attribute = arguments.find_named("attribute");
  if (arguments.positional.empty() && attribute != nullptr) {
    const Value* otherwise = arguments.find_named("default");
    if (arguments.named.size() > (otherwise != nullptr ? 2U : 1U))
      fail(ErrorKind::data, "map() got an unexpected argument");
    for (const Value& item : items) {
      Value found = in.lookup(item, *attribute);
      mapped.push_back(found.is(Kind::undefined) && otherwise != nullptr ? *otherwise
                                                                         : std::move(found));
    }
    return in.heap().generator(std::move(mapped));
  }
  if (arguments.positional.empty()) fail(ErrorKind::data, "map requires a filter argument");
  const std::string& name = require_text(arguments.positional.front(), "the filter of map").bytes;
  const Arguments rest = rest_of(arguments, 1);
  for (const Value& item : items) mapped.push_back(in.apply_filter(name, item, rest));
  return in.heap().generator(std::move(mapped));
}

/// Keeps the items whose value, or whose attribute, passes the test (or is true without one) as
/// `wanted` says.
Value choose(In in, Self self, Args arguments, bool by_attribute, bool wanted) {
  const std::size_t test_at = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty())
    fail(ErrorKind::data, "Missing parameter for attribute name");
  std::string test;
  if (arguments.positional.size() > test_at)
    test = require_text(arguments.positional[test_at], "the name of a test").bytes;
  const Arguments rest = rest_of(arguments, test_at + 1);
  std::vector<Value> kept;
  for (const Value& item : items_to_choose(in, self)) {
    const Value subject = by_attribute ? in.lookup(item, arguments.positional.front()) : item;
    const bool passes = test.empty() ? is_true(subject) : in.apply_test(test, subject, rest);
    if (passes == wanted) kept.push_back(item);
  }
  return in.heap().generator(std::move(kept));
}

Value filter_select(In in, Self self, Args arguments) {
  return choose(in, self, arguments, false, true);
}
Value filter_reject(In in, Self self, Args arguments) {
  return choose(in, self, arguments, false, false);
}
Value filter_selectattr(In in, Self self, Args arguments) {
  return choose(in, self, arguments, true, true);
}
Value filter_rejectattr(In in, Self self, Args arguments) {
  return choose(in, self, arguments, true, false);
}

/// A tuple whose parts also have the names grouper and list.
Value filter_groupby(In in, Self self, Args arguments) {
  const Bound bound(arguments, "groupby", {"attribute", "default", "case_sensitive"}, 1);
  const Heap& heap = in.heap();
  const bool case_sensitive = bound.flag(2, false);
  struct Keyed {
    Value folded, key, item;
  };
  std::vector<Keyed> keyed;
  for (const Value& item : in.iterate(self)) {
    Value key = in.lookup(item, *bound[0]);
    if (key.is(Kind::undefined) && bound[1] != nullptr) key = *bound[1];
    Value folded = key;
    if (!case_sensitive && key.is(Kind::text)) folded = find_text_method("lower")(in, key, {});
    keyed.push_back({std::move(folded), std::move(key), item});
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    in.budget().step();
    return compare(a.folded, b.folded) < 0;
  });
  std::vector<Value> groups;
  for (std::size_t begin = 0; begin < keyed.size();) {
    std::size_t end = begin;
    std::vector<Value> items;
    while (end < keyed.size() && equal(keyed[begin].folded, keyed[end].folded))
      items.push_back(keyed[end++].item);
    groups.push_back(
        heap.list({keyed[begin].key, heap.list(std::move(items))}, Kind::tuple, kGroupLabel));
    begin = end;
  }
  return heap.list(std::move(groups));
}

Value filter_default(In, Self self, Args arguments) {
  const Bound bound(arguments, "default", {"default_value", "boolean"});
  const bool missing = self.is(Kind::undefined) || (bound.flag(1, false) && !is_true(self));
  if (!missing) return self;
  if (bound[0] != nullptr) return *bound[0];
  return Heap(nullptr).text("");
}

Value filter_attr(In in, Self self, Args arguments) {
  const Bound bound(arguments, "attr", {"name"}, 1);
  if (self.is(Kind::dict) && find_dict_method(bound.text(0, "")) == nullptr) {
    return in.heap().undefined("'dict object' has no attribute '" + bound.text(0, "") + "'");
  }
  return in.attribute(self, bound.text(0, ""));
}

}  // namespace

Function find_selection_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> filters = {
      {"map", filter_map},
      {"select", filter_select},
      {"reject", filter_reject},
      {"selectattr", filter_selectattr},
      {"rejectattr", filter_rejectattr},
      {"groupby", filter_groupby},
      {"default", filter_default},
      {"d", filter_default},
      {"attr", filter_attr},
  };
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace finetune::jinja
