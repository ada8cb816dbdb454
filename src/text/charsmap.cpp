#include "text/charsmap.h"

#include "finetune/base/error.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <utf8proc.h>

#include <memory>
#include <utility>

namespace finetune {

namespace {

// A unit of the trie: the byte that leads to it, whether a rule ends there, and where its children
// are.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t label(std::uint32_t unit) { return unit & (0x80000000u | 0xFFu); }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
std::uint32_t leaf_value(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// The end of the grapheme that begins at `begin`.
std::size_t grapheme_end(std::string_view text, std::size_t begin) {
  CodePoint character = code_point_at(text, begin);
  utf8proc_int32_t state = 0;
  for (std::size_t end = begin + character.size; end < text.size(); end += character.size) {
    const auto before = static_cast<utf8proc_int32_t>(character.value);
    character = code_point_at(text, end);
    if (utf8proc_grapheme_break_stateful(before, static_cast<utf8proc_int32_t>(character.value),
                                         &state))
      return end;
  }
  return text.size();
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& where) {
  const std::uint32_t size = blob.size() < 4 ? 0 : little_endian(blob);
  if (size == 0 || size % 4 != 0 || size > blob.size() - 4) {
    fail(ErrorKind::model,
         "{}: the normalizer's precompiled rules are damaged (a trie of {} bytes in {})", where,
         size, blob.size());
  }
  for (std::size_t i = 0; i < size; i += 4) units_.push_back(little_endian(blob.substr(4 + i)));
  texts_ = blob.substr(4 + size);
  check(where);
}

void Charsmap::check(const std::string& where) const {
  std::vector<bool> seen(units_.size());
  std::vector<std::uint32_t> open = {0};
  bool sound = true;
  while (!open.empty() && sound) {
    const std::uint32_t node = open.back();
    open.pop_back();
    const std::uint32_t base = node ^ offset(units_[node]);
    sound = (base | 0xFFu) < units_.size();
    if (!sound) break;
    if (has_leaf(units_[node])) sound = leaf_value(units_[base]) < texts_.size();
    for (std::uint32_t byte = 1; byte < 256; ++byte) {
      const std::uint32_t child = base ^ byte;
      if (label(units_[child]) != byte || seen[child]) continue;
      seen[child] = true;
      open.push_back(child);
    }
  }
  if (!sound || texts_.empty() || texts_.back() != '\0') {
    fail(
        ErrorKind::model,
        "{}: the normalizer's precompiled rules are damaged (a trie of {} units, {} bytes of text)",
        where, units_.size(), texts_.size());
  }
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  std::uint32_t node = offset(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    const std::uint32_t unit = units_[node];
    if (label(unit) != byte) return std::nullopt;
    node ^= offset(unit);
    if (has_leaf(unit)) return std::string_view(texts_.c_str() + leaf_value(units_[node]));
  }
  return std::nullopt;
}

Normalizer make_precompiled_normalizer(const nlohmann::json& config, const std::string& where) {
  constexpr std::size_t kWholeGrapheme =
      6;  // `tokenizers` looks up graphemes of fewer bytes as a whole
  const auto blob = decode_base64(config.at("precompiled_charsmap").get<std::string>());
  if (!blob) fail(ErrorKind::model, "{}: precompiled_charsmap is not base64", where);
  const auto rules = std::make_shared<Charsmap>(*blob, where);
  return [rules](AlignedText& text) {
    const std::string_view in = text.text();
    AlignedText result = text.rewritten();
    std::size_t done = 0;
    bool changed = false;
    const auto rewrite = [&](std::size_t begin, std::size_t end) {
      const auto replacement = rules->replacement(in.substr(begin, end - begin));
      if (!replacement) return false;
      changed = true;
      result.append_from(text, done, begin);
      result.append(*replacement, text.original(begin, end));
      done = end;
      return true;
    };
    for (std::size_t begin = 0, end = 0; begin < in.size(); begin = end) {
      end = grapheme_end(in, begin);
      if (end - begin < kWholeGrapheme && rewrite(begin, end)) continue;
      for (std::size_t at = begin; at < end;) {
        const std::size_t next = at + code_point_at(in, at).size;
        rewrite(at, next);
        at = next;
      }
    }
    if (!changed) return;
    result.append_from(text, done, in.size());
    text = std::move(result);
  };
}

std::optional<std::string> decode_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    int digit = -1;
    if (c >= 'A' && c <= 'Z') digit = c - 'A';
    if (c >= 'a' && c <= 'z') digit = c - 'a' + 26;
    if (c >= '0' && c <= '9') digit = c - '0' + 52;
    if (c == '+') digit = 62;
    if (c == '/') digit = 63;
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  if (count >= 6) return std::nullopt;
  return bytes;
}

}  // namespace finetune
