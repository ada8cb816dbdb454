#pragma once

#include "jinja/value.h"

#include <functional>

namespace finetune::jinja {

/// Puts a text together and keeps where its parts came from.
class TextBuilder {
 public:
  explicit TextBuilder(std::size_t max_bytes = std::size_t{64} << 20) : max_bytes_(max_bytes) {}

  /// Throws Error(data) above the limit, as all of these do.
  void add(std::string_view bytes, Tag tag = {});
  void add(const TextObject& text) { add(text, 0, text.bytes.size()); }
  /// The bytes [begin, end) of a text.
  void add(const TextObject& text, std::size_t begin, std::size_t end);
  /// The same, with `change` applied to every tag.
  void add_retagged(const TextObject& text, const std::function<Tag(Tag)>& change);

  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  Value finish(const Heap& heap, bool markup = false) {
    return heap.text(std::move(bytes_), std::move(spans_), markup);
  }
  std::string take_bytes() { return std::move(bytes_); }
  const std::vector<Span>& spans() const { return spans_; }

 private:
  void tag(std::size_t begin, Tag tag);

  std::string bytes_;
  std::vector<Span> spans_;
  std::size_t max_bytes_;
};

/// Finds the tags of ascending positions of a text.
class TagCursor {
 public:
  explicit TagCursor(const TextObject& text) : spans_(text.spans) {}
  /// `position` is not before that of the last call.
  Tag at(std::size_t position);

 private:
  const std::vector<Span>& spans_;
  std::size_t next_ = 0;
};

/// The bytes [begin, end); the text itself where that is all of it.
Value slice(const Heap& heap, const Value& text, std::size_t begin, std::size_t end);
/// Joins two texts; escapes one where only the other is markup.
Value concatenate(const Heap& heap, const Value& a, const Value& b);
/// Every code point mapped to a text.
Value map_code_points(const Heap& heap, const Value& text,
                      const std::function<void(char32_t, std::string&)>& map);
/// &, <, >, " and ' as HTML entities; markup stays as it is.
Value escape(const Heap& heap, const Value& text);
/// The parts of `text` between the occurrences of `separator` (not empty), at most `max_splits` +
/// 1; -1: all.
std::vector<Value> split(const Heap& heap, const Value& text, std::string_view separator,
                         std::int64_t max_splits);
/// Occurrences of `old` replaced, at most `count`; -1: all. As str.replace for an empty `old`.
Value replace(const Heap& heap, const Value& text, std::string_view old, const TextObject& with,
              std::int64_t count);
/// The text `count` times.
Value repeat(const Heap& heap, const Value& text, std::int64_t count);
/// Without leading and trailing code points of `characters`; of white space where that is absent.
Value strip(const Heap& heap, const Value& text, const std::optional<std::string>& characters,
            bool left, bool right);

/// Python's str(): texts as they are with their tags, everything else printed.
Value to_text(const Heap& heap, const Value& value);
/// Python's repr(), with the tags of what comes from messages.
void add_repr(TextBuilder& builder, const Value& value);
/// Python's repr of a float.
std::string float_text(double number);

/// How json.dumps writes a value.
struct JsonStyle {
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};
/// Python's json.dumps, with the tags of what comes from messages. Throws Error(data) for what has
/// no JSON.
void add_json(TextBuilder& builder, const Value& value, const JsonStyle& style);

}  // namespace finetune::jinja
