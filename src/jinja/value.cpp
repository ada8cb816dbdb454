#include "jinja/value.h"

#include "finetune/base/error.h"

#include <algorithm>
#include <cmath>

namespace finetune::jinja {

namespace {

constexpr std::int32_t kMaxDepth = 200;     // levels of values inside values
constexpr std::size_t kIndexedEntries = 8;  // dictionaries up to here are searched entry by entry
constexpr std::size_t kMaxTextBytes = std::size_t{64} << 20;

}  // namespace

void Budget::fail_steps() const {
  fail(ErrorKind::data, "the template takes more than {} steps; it may never end", max_steps_);
}

void Budget::fail_bytes() const {
  fail(ErrorKind::data, "the template needs more than {} MiB of memory", max_bytes_ >> 20);
}

const Value* DictObject::find(std::string_view key) const {
  if (!texts.empty()) {
    const auto found = texts.find(key);
    return found == texts.end() ? nullptr : &entries[found->second].second;
  }
  for (const auto& [name, value] : entries) {
    if (name.is(Kind::text) && bytes_of(name) == key) return &value;
  }
  return nullptr;
}

const Value* DictObject::find(const Value& key) const {
  if (key.is(Kind::text)) return find(std::string_view(bytes_of(key)));
  for (const auto& [name, value] : entries) {
    if (!name.is(Kind::text) && equal(name, key)) return &value;
  }
  return nullptr;
}

const Value* Arguments::find_named(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value Instance::call(Interpreter&, const Arguments&) {
  fail(ErrorKind::data, "'{}' object is not callable", type_name());
}

void Heap::count(Object& object, std::size_t bytes, std::int32_t depth) const {
  if (depth > kMaxDepth) fail(ErrorKind::data, "values are nested more than {} deep", kMaxDepth);
  object.depth = depth;
  if (budget_ == nullptr) return;
  budget_->allocate(bytes);
  object.budget = budget_;
  object.counted = bytes;
}

Value Heap::text(std::string bytes, std::vector<Span> spans, bool markup) const {
  if (bytes.size() > kMaxTextBytes) {
    fail(ErrorKind::data, "a text of the template is larger than {} MiB", kMaxTextBytes >> 20);
  }
  auto object = std::make_shared<TextObject>();
  work(bytes.size() + spans.size() * sizeof(Span));
  count(*object, sizeof(TextObject) + bytes.capacity() + spans.capacity() * sizeof(Span), 0);
  object->bytes = std::move(bytes);
  object->spans = std::move(spans);
  object->markup = markup;
  Value value = Value::of(Kind::text);
  value.object = std::move(object);
  return value;
}

Value Heap::list(std::vector<Value> items, Kind kind, std::string label,
                 std::int32_t source) const {
  auto object = std::make_shared<ListObject>();
  std::int32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  work(items.size() * sizeof(Value));
  count(*object, sizeof(ListObject) + items.capacity() * sizeof(Value), depth + 1);
  object->items = std::move(items);
  object->label = std::move(label);
  object->source = source;
  Value value = Value::of(kind);
  value.object = std::move(object);
  return value;
}

Value Heap::dict(std::vector<std::pair<Value, Value>> entries, std::int32_t source,
                 bool is_message) const {
  auto object = std::make_shared<DictObject>();
  std::int32_t depth = 0;
  work(entries.size() * 4 * sizeof(Value));
  for (auto& [key, value] : entries) {
    require_defined(key);
    if (key.is(Kind::list) || key.is(Kind::dict))
      fail(ErrorKind::data, "unhashable type: '{}'", type_name(key));
    depth = std::max({depth, key.depth(), value.depth()});
    auto* old = const_cast<Value*>(object->find(key));
    if (old != nullptr) {
      *old = std::move(value);
      continue;
    }
    if (budget_ != nullptr && object->texts.empty())
      budget_->step(static_cast<std::int64_t>(object->entries.size() / 16));
    object->entries.emplace_back(std::move(key), std::move(value));
    if (object->entries.size() < kIndexedEntries) continue;
    const std::size_t first = object->texts.empty() ? 0 : object->entries.size() - 1;
    for (std::size_t i = first; i < object->entries.size(); ++i) {
      if (object->entries[i].first.is(Kind::text))
        object->texts.emplace(bytes_of(object->entries[i].first), i);
    }
  }
  count(*object, sizeof(DictObject) + object->entries.capacity() * (2 * sizeof(Value) + 32),
        depth + 1);
  object->source = source;
  object->is_message = is_message;
  Value value = Value::of(Kind::dict);
  value.object = std::move(object);
  return value;
}

Value Heap::instance(std::shared_ptr<Instance> object, std::int32_t depth,
                     std::size_t bytes) const {
  count(*object, 128 + bytes, depth + 1);
  Value value = Value::of(Kind::instance);
  value.object = std::move(object);
  return value;
}

Value Heap::undefined(std::string message) const {
  Value value = text(std::move(message));
  value.kind = Kind::undefined;
  return value;
}

bool is_true(const Value& value) {
  switch (value.kind) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean;
    case Kind::integer:
      return value.integer != 0;
    case Kind::floating:
      return value.floating != 0;
    case Kind::text:
      return !bytes_of(value).empty();
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
    case Kind::view:
      return !items_of(value).empty();
    case Kind::dict:
      return !dict_of(value).entries.empty();
    case Kind::generator:
    case Kind::instance:
      return true;
  }
  return false;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_whole() && b.is_whole()) return a.whole() == b.whole();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.kind != b.kind) return false;
  if (a.object && a.object == b.object) return true;
  // Values that share parts can be far larger than the memory they take.
  if (a.object && a.object->budget != nullptr)
    a.object->budget->work(a.is(Kind::text) ? bytes_of(a).size() : 1);
  switch (a.kind) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::text:
      return bytes_of(a) == bytes_of(b);
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
      return std::equal(items_of(a).begin(), items_of(a).end(), items_of(b).begin(),
                        items_of(b).end(), equal);
    case Kind::dict: {
      const auto& entries = dict_of(a).entries;
      if (entries.size() != dict_of(b).entries.size()) return false;
      return std::all_of(entries.begin(), entries.end(), [&](const auto& entry) {
        const Value* other = dict_of(b).find(entry.first);
        return other != nullptr && equal(entry.second, *other);
      });
    }
    default:
      return a.object == b.object;
  }
}

int compare(const Value& a, const Value& b, std::string_view operation) {
  require_defined(a);
  require_defined(b);
  if (a.is_whole() && b.is_whole())
    return a.whole() < b.whole() ? -1 : a.whole() > b.whole() ? 1 : 0;
  if (a.is_number() && b.is_number())
    return a.number() < b.number() ? -1 : a.number() > b.number() ? 1 : 0;
  // The order of UTF-8 bytes is that of code points.
  if (a.is(Kind::text) && b.is(Kind::text)) return bytes_of(a).compare(bytes_of(b));
  if (a.kind == b.kind && (a.is(Kind::list) || a.is(Kind::tuple))) {
    const auto &x = items_of(a), &y = items_of(b);
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return compare(x[i], y[i], operation);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  fail(ErrorKind::data, "'{}' not supported between instances of '{}' and '{}'", operation,
       type_name(a), type_name(b));
}

void require_defined(const Value& value) {
  if (!value.is(Kind::undefined)) return;
  fail(ErrorKind::data, "{}", value.object ? bytes_of(value) : "a value is undefined");
}

std::string type_name(const Value& value) {
  switch (value.kind) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::floating:
      return "float";
    case Kind::text:
      return text_of(value).markup ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::range:
      return "range";
    case Kind::view:
      return list_of(value).label;
    case Kind::generator:
      return "generator";
    case Kind::dict:
      return "dict";
    case Kind::instance:
      return instance_of(value).type_name();
  }
  return "";
}

std::int64_t require_whole(const Value& value, std::string_view what) {
  require_defined(value);
  if (!value.is_whole())
    fail(ErrorKind::data, "{} is a '{}'; expected an integer", what, type_name(value));
  return value.whole();
}

const TextObject& require_text(const Value& value, std::string_view what) {
  require_defined(value);
  if (!value.is(Kind::text))
    fail(ErrorKind::data, "{} is a '{}'; expected a string", what, type_name(value));
  return text_of(value);
}

}  // namespace finetune::jinja
