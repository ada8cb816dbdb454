#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace finetune::jinja {

class Interpreter;

/// What a template may use up while it renders; throws Error(data) at the limit.
class Budget {
 public:
  Budget(std::int64_t max_steps, std::size_t max_bytes)
      : max_steps_(max_steps), max_bytes_(max_bytes) {}

  void step(std::int64_t count = 1) {
    steps_ += count;
    if (steps_ > max_steps_) fail_steps();
  }
  /// The work of reading or copying so many bytes.
  void work(std::size_t bytes) { step(1 + static_cast<std::int64_t>(bytes / 256)); }
  void allocate(std::size_t bytes) {
    if (bytes > max_bytes_ - std::min(bytes_, max_bytes_)) fail_bytes();
    bytes_ += bytes;
  }
  void release(std::size_t bytes) { bytes_ -= bytes; }

 private:
  [[noreturn]] void fail_steps() const;
  [[noreturn]] void fail_bytes() const;

  std::int64_t max_steps_, steps_ = 0;
  std::size_t max_bytes_, bytes_ = 0;
};

/// Where bytes of a text came from.
struct Tag {
  std::int32_t source = -1;  ///< index of the message, or -1
  std::int32_t turn = -1;    ///< message whose turn was being written; known in the output only
  bool generated = false;    ///< written inside {% generation %}
  bool operator==(const Tag&) const = default;
  bool empty() const { return source < 0 && !generated; }
};

struct Span {
  std::size_t begin = 0, end = 0;
  Tag tag;
};

/// What a value points to. Its memory counts as long as it lives.
struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() {
    if (budget != nullptr) budget->release(counted);
  }

  std::int32_t depth =
      0;  ///< levels of values inside values; bounded, so that destructors do not recurse deeply
  Budget* budget = nullptr;
  std::size_t counted = 0;
};

/// Kinds of values, as in Python. `instance` is everything with a behaviour of its own: functions,
/// macros, loops, namespaces.
enum class Kind {
  undefined,
  none,
  boolean,
  integer,
  floating,
  text,
  list,
  tuple,
  range,
  view,
  generator,
  dict,
  instance
};

/// A value of the template language. Copies share the object behind it, which never changes (but
/// for generators and instances).
struct Value {
  Kind kind = Kind::undefined;
  union {
    bool boolean;
    std::int64_t integer = 0;
    double floating;
  };
  std::shared_ptr<Object> object;

  static Value none() { return of(Kind::none); }
  static Value of(Kind kind) {
    Value value;
    value.kind = kind;
    return value;
  }
  static Value of_bool(bool flag) {
    Value value = of(Kind::boolean);
    value.boolean = flag;
    return value;
  }
  static Value of_int(std::int64_t number) {
    Value value = of(Kind::integer);
    value.integer = number;
    return value;
  }
  static Value of_float(double number) {
    Value value = of(Kind::floating);
    value.floating = number;
    return value;
  }

  bool is(Kind other) const { return kind == other; }
  bool is_number() const {
    return kind == Kind::boolean || kind == Kind::integer || kind == Kind::floating;
  }
  bool is_whole() const { return kind == Kind::boolean || kind == Kind::integer; }
  /// A list, tuple, range, view or generator: it has a ListObject.
  bool has_items() const { return kind >= Kind::list && kind <= Kind::generator; }
  std::int64_t whole() const { return kind == Kind::boolean ? (boolean ? 1 : 0) : integer; }
  double number() const { return kind == Kind::floating ? floating : static_cast<double>(whole()); }
  std::int32_t depth() const { return object ? object->depth : 0; }
};

struct TextObject : Object {
  std::string bytes;
  std::vector<Span> spans;  ///< ascending, disjoint; mostly none
  bool markup = false;      ///< made by |safe or |escape: what is added to it is escaped
};

struct ListObject : Object {
  std::vector<Value> items;
  std::string label;         ///< how a range, view or generator prints
  std::size_t position = 0;  ///< of a generator
  std::int32_t source = -1;  ///< the message this list came from
};

struct DictObject : Object {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string_view, std::size_t>
      texts;                 ///< text key -> entry, of large dictionaries
  std::int32_t source = -1;  ///< the message this dictionary came from, or is
  bool is_message = false;

  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
};

/// Arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find_named(std::string_view name) const;
};

/// An object with a behaviour.
struct Instance : Object {
  virtual std::optional<Value> attribute(Interpreter&, std::string_view) { return std::nullopt; }
  /// Throws Error(data) for what cannot be called.
  virtual Value call(Interpreter& interpreter, const Arguments& arguments);
  virtual bool callable() const { return false; }
  virtual std::string type_name() const = 0;
  virtual std::string print() const { return "<" + type_name() + ">"; }
  virtual bool is_namespace() const { return false; }
};

inline const TextObject& text_of(const Value& value) {
  return static_cast<const TextObject&>(*value.object);
}
inline const std::string& bytes_of(const Value& value) { return text_of(value).bytes; }
inline ListObject& list_of(const Value& value) { return static_cast<ListObject&>(*value.object); }
inline const std::vector<Value>& items_of(const Value& value) { return list_of(value).items; }
inline const DictObject& dict_of(const Value& value) {
  return static_cast<const DictObject&>(*value.object);
}
inline Instance& instance_of(const Value& value) { return static_cast<Instance&>(*value.object); }

/// Makes values whose memory is counted.
class Heap {
 public:
  explicit Heap(Budget* budget) : budget_(budget) {}

  Value text(std::string bytes, std::vector<Span> spans = {}, bool markup = false) const;
  Value list(std::vector<Value> items, Kind kind = Kind::list, std::string label = {},
             std::int32_t source = -1) const;
  Value tuple(std::vector<Value> items) const { return list(std::move(items), Kind::tuple); }
  Value generator(std::vector<Value> items) const {
    return list(std::move(items), Kind::generator, "<generator object>");
  }
  /// A later entry replaces an earlier one of an equal key, at its place. Throws Error(data) for a
  /// key that is a list or a dictionary.
  Value dict(std::vector<std::pair<Value, Value>> entries, std::int32_t source = -1,
             bool is_message = false) const;
  /// A value over an instance; `depth` and `bytes` are those of the values inside.
  Value instance(std::shared_ptr<Instance> object, std::int32_t depth, std::size_t bytes = 0) const;
  Value undefined(std::string message) const;

  /// Null for the constants of a template.
  Budget* budget() const { return budget_; }
  void work(std::size_t bytes) const {
    if (budget_ != nullptr) budget_->work(bytes);
  }

 private:
  void count(Object& object, std::size_t bytes, std::int32_t depth) const;

  Budget* budget_;
};

/// Python's bool().
bool is_true(const Value& value);
/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's order of two values: negative, 0, positive. Throws Error(data) for types without one.
int compare(const Value& a, const Value& b, std::string_view operation = "<");
/// Throws Error(data) for an undefined value, with what it was meant to be.
void require_defined(const Value& value);
/// "str", "int", "NoneType" ...
std::string type_name(const Value& value);
/// Throws Error(data) for a value that has no whole number; `what` is what the message calls it.
std::int64_t require_whole(const Value& value, std::string_view what);
/// Throws Error(data) for a value that is no text.
const TextObject& require_text(const Value& value, std::string_view what);

}  // namespace finetune::jinja
