#include "jinja/text.h"

#include "finetune/base/error.h"
#include "jinja/unicode.h"

#include <algorithm>

namespace finetune::jinja {

void TextBuilder::tag(std::size_t begin, Tag tag) {
  if (tag.empty() || begin == bytes_.size()) return;
  if (!spans_.empty() && spans_.back().end == begin && spans_.back().tag == tag) {
    spans_.back().end = bytes_.size();
  } else {
    spans_.push_back({begin, bytes_.size(), tag});
  }
}

void TextBuilder::add(std::string_view bytes, Tag new_tag) {
  if (bytes.size() > max_bytes_ - std::min(max_bytes_, bytes_.size())) {
    fail(ErrorKind::data, "the template writes more than {} MiB", max_bytes_ >> 20);
  }
  const std::size_t begin = bytes_.size();
  bytes_ += bytes;
  tag(begin, new_tag);
}

void TextBuilder::add(const TextObject& text, std::size_t begin, std::size_t end) {
  auto span =
      std::upper_bound(text.spans.begin(), text.spans.end(), begin,
                       [](std::size_t position, const Span& s) { return position < s.end; });
  while (begin < end) {
    std::size_t stop = end;
    Tag tag;
    if (span != text.spans.end() && span->begin <= begin) {
      stop = std::min(end, span->end);
      tag = span->tag;
      ++span;
    } else if (span != text.spans.end()) {
      stop = std::min(end, span->begin);
    }
    add(std::string_view(text.bytes).substr(begin, stop - begin), tag);
    begin = stop;
  }
}

void TextBuilder::add_retagged(const TextObject& text, const std::function<Tag(Tag)>& change) {
  std::size_t begin = 0;
  const auto add_part = [&](std::size_t end, Tag tag) {
    if (end > begin) add(std::string_view(text.bytes).substr(begin, end - begin), change(tag));
    begin = end;
  };
  for (const Span& span : text.spans) {
    add_part(span.begin, {});
    add_part(span.end, span.tag);
  }
  add_part(text.bytes.size(), {});
}

Tag TagCursor::at(std::size_t position) {
  while (next_ < spans_.size() && spans_[next_].end <= position) ++next_;
  return next_ < spans_.size() && spans_[next_].begin <= position ? spans_[next_].tag : Tag{};
}

Value slice(const Heap& heap, const Value& text, std::size_t begin, std::size_t end) {
  const TextObject& object = text_of(text);
  if (begin == 0 && end == object.bytes.size()) return text;
  if (object.spans.empty())
    return heap.text(object.bytes.substr(begin, end - begin), {}, object.markup);
  TextBuilder builder;
  builder.add(object, begin, end);
  return builder.finish(heap, object.markup);
}

Value concatenate(const Heap& heap, const Value& a, const Value& b) {
  const bool markup = text_of(a).markup || text_of(b).markup;
  const Value& left = markup ? escape(heap, a) : a;
  const Value& right = markup ? escape(heap, b) : b;
  TextBuilder builder;
  builder.add(text_of(left));
  builder.add(text_of(right));
  return builder.finish(heap, markup);
}

Value map_code_points(const Heap& heap, const Value& text,
                      const std::function<void(char32_t, std::string&)>& map) {
  const TextObject& object = text_of(text);
  heap.work(object.bytes.size() * 8);
  TextBuilder builder;
  TagCursor cursor(object);
  std::string mapped;
  for (std::size_t i = 0; i < object.bytes.size();) {
    const Tag tag = cursor.at(i);
    mapped.clear();
    map(next_code_point(object.bytes, i), mapped);
    builder.add(mapped, tag);
  }
  return builder.finish(heap, object.markup);
}

Value escape(const Heap& heap, const Value& text) {
  if (text_of(text).markup) return text;
  const Value escaped = map_code_points(heap, text, [](char32_t c, std::string& out) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        append_utf8(out, c);
    }
  });
  const TextObject& object = text_of(escaped);
  return heap.text(object.bytes, object.spans, true);
}

std::vector<Value> split(const Heap& heap, const Value& text, std::string_view separator,
                         std::int64_t max_splits) {
  const std::string& bytes = bytes_of(text);
  heap.work(bytes.size());
  std::vector<Value> parts;
  std::size_t begin = 0;
  while (max_splits < 0 || static_cast<std::int64_t>(parts.size()) < max_splits) {
    const std::size_t found = bytes.find(separator, begin);
    if (found == bytes.npos) break;
    parts.push_back(slice(heap, text, begin, found));
    begin = found + separator.size();
  }
  parts.push_back(slice(heap, text, begin, bytes.size()));
  return parts;
}

Value replace(const Heap& heap, const Value& text, std::string_view old, const TextObject& with,
              std::int64_t count) {
  const TextObject& object = text_of(text);
  heap.work(object.bytes.size());
  TextBuilder builder;
  std::size_t begin = 0;
  std::int64_t done = 0;
  const auto more = [&] { return count < 0 || done < count; };
  if (old.empty()) {  // before every code point and at the end
    while (begin < object.bytes.size() && more()) {
      std::size_t next = begin;
      next_code_point(object.bytes, next);
      builder.add(with);
      builder.add(object, begin, next);
      begin = next;
      ++done;
    }
    builder.add(object, begin, object.bytes.size());
    if (more()) builder.add(with);
    return builder.finish(heap, object.markup);
  }
  while (more()) {
    const std::size_t found = object.bytes.find(old, begin);
    if (found == std::string::npos) break;
    builder.add(object, begin, found);
    builder.add(with);
    begin = found + old.size();
    ++done;
  }
  if (begin == 0) return text;
  builder.add(object, begin, object.bytes.size());
  return builder.finish(heap, object.markup);
}

Value repeat(const Heap& heap, const Value& text, std::int64_t count) {
  const TextObject& object = text_of(text);
  if (object.bytes.empty()) return text;
  TextBuilder builder;
  for (std::int64_t i = 0; i < count; ++i) {
    heap.work(object.bytes.size());
    builder.add(object);
  }
  return builder.finish(heap, object.markup);
}

Value strip(const Heap& heap, const Value& text, const std::optional<std::string>& characters,
            bool left, bool right) {
  const std::string& bytes = bytes_of(text);
  heap.work(bytes.size());
  std::size_t begin = 0, end = bytes.size();
  if (!characters) {
    if (left) begin = skip_space(bytes, 0);
    if (right) end = trim_space(bytes, begin, end);
    return slice(heap, text, begin, end);
  }
  std::u32string set;
  for (std::size_t i = 0; i < characters->size();) set += next_code_point(*characters, i);
  while (left && begin < end) {
    std::size_t next = begin;
    if (set.find(next_code_point(bytes, next)) == set.npos) break;
    begin = next;
  }
  while (right && begin < end) {
    std::size_t start = end - 1;
    while (start > begin && (static_cast<unsigned char>(bytes[start]) & 0xC0) == 0x80) --start;
    std::size_t next = start;
    if (set.find(next_code_point(bytes, next)) == set.npos) break;
    end = start;
  }
  return slice(heap, text, begin, end);
}

}  // namespace finetune::jinja
