#include "finetune/base/error.h"
#include "text/regex.h"
#include "text/scripts.h"
#include "text/split_pattern.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <algorithm>
#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

/// What happens to the text that a pattern matches (`tokenizers`' SplitDelimiterBehavior).
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// A stretch of a word: does the pattern match it?
struct Stretch {
  ByteSpan span;
  bool matched = false;
};

/// Reports the matches in a word, relative to its beginning.
using FindMatches =
    std::function<void(std::string_view word, const std::function<void(ByteSpan)>& found)>;

Behavior parse_behavior(const json& config, Behavior otherwise, const std::string& where) {
  if (!config.contains("behavior")) return otherwise;
  const std::string name = config.at("behavior").get<std::string>();
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  refuse_stage(where, "split behavior", name);
}

/// All of the word as stretches; those that matched may be empty, which still parts their
/// neighbours.
std::vector<Stretch> stretches(std::string_view word, const FindMatches& find, bool invert) {
  std::vector<Stretch> result;
  std::size_t done = 0;
  find(word, [&](ByteSpan match) {
    if (match.begin > done) result.push_back({{done, match.begin}, invert});
    result.push_back({match, !invert});
    done = match.end;
  });
  if (done < word.size()) result.push_back({{done, word.size()}, invert});
  return result;
}

/// Joins stretches into words and appends those, moved by `base`.
void append_words(const std::vector<Stretch>& parts, Behavior behavior, std::size_t base,
                  std::vector<ByteSpan>& words) {
  const std::size_t first = words.size();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Stretch& part = parts[i];
    const bool previous_matched = i > 0 && parts[i - 1].matched;
    bool join = false;
    switch (behavior) {
      case Behavior::removed:
        if (part.matched) continue;
        break;
      case Behavior::isolated:
        break;
      case Behavior::merged_with_previous:
        join = part.matched && !previous_matched;
        break;
      case Behavior::merged_with_next:
        join = !part.matched && previous_matched;
        break;
      case Behavior::contiguous:
        join = i > 0 && part.matched == previous_matched;
        break;
    }
    if (join && words.size() > first) {
      words.back().end = base + part.span.end;
    } else {
      words.push_back({base + part.span.begin, base + part.span.end});
    }
  }
  const auto empty = [](ByteSpan word) { return word.begin == word.end; };
  words.erase(
      std::remove_if(words.begin() + static_cast<std::ptrdiff_t>(first), words.end(), empty),
      words.end());
}

PreTokenizer make_splitter(FindMatches find, Behavior behavior, bool invert = false) {
  return [find = std::move(find), behavior, invert](PreTokenized& pre) {
    std::vector<ByteSpan> words;
    for (const ByteSpan word : pre.words) {
      const std::string_view text = pre.text.text().substr(word.begin, word.end - word.begin);
      append_words(stretches(text, find, invert), behavior, word.begin, words);
    }
    pre.words = std::move(words);
  };
}

FindMatches match_regex(const std::string& pattern, const std::string& where) {
  return [regex = std::make_shared<Regex>(pattern, where)](
             std::string_view word, const auto& found) { regex->for_each(word, found); };
}

FindMatches match_literal(const std::string& literal) {
  return [literal](std::string_view word, const auto& found) {
    for (std::size_t at = word.find(literal); at != std::string_view::npos && !literal.empty();
         at = word.find(literal, at + literal.size())) {
      found(ByteSpan{at, at + literal.size()});
    }
  };
}

FindMatches match_characters(bool (*predicate)(char32_t)) {
  return [predicate](std::string_view word, const auto& found) {
    for (std::size_t at = 0; at < word.size();) {
      const CodePoint character = code_point_at(word, at);
      if (predicate(character.value)) found(ByteSpan{at, at + character.size});
      at += character.size;
    }
  };
}

/// Splits with the hand-written matcher of a well-known pattern, which matches all of a text.
PreTokenizer make_known_splitter(SplitFunction split) {
  return [split](PreTokenized& pre) {
    std::vector<ByteSpan> words;
    for (const ByteSpan word : pre.words) {
      split(pre.text.text().substr(word.begin, word.end - word.begin), word.begin, words);
    }
    pre.words = std::move(words);
  };
}

PreTokenizer make_regex_splitter(const std::string& pattern, Behavior behavior, bool invert,
                                 const std::string& where) {
  const bool every_match_is_a_word =
      behavior == Behavior::isolated || (behavior == Behavior::removed && invert);
  const SplitFunction known = find_split_function(pattern);
  if (known != nullptr && every_match_is_a_word) return make_known_splitter(known);
  return make_splitter(match_regex(pattern, where), behavior, invert);
}

/// Rewrites every word: `write(pre, word, result)` appends the word's new text to `result`.
template <typename Write>
void rewrite_words(PreTokenized& pre, const Write& write) {
  AlignedText result = pre.text.rewritten();
  result.reserve(pre.text.size() + pre.text.size() / 2 + 8);
  for (ByteSpan& word : pre.words) {
    const std::size_t begin = result.size();
    write(pre, word, result);
    word = {begin, result.size()};
  }
  pre.text = std::move(result);
}

/// Puts `prefix` before the words that do not begin with it and for which `wanted` holds.
template <typename Wanted>
void prepend_words(PreTokenized& pre, const std::string& prefix, const Wanted& wanted) {
  const auto lacks = [&](ByteSpan word) {
    return pre.text.text().compare(word.begin, prefix.size(), prefix) != 0 &&
           wanted(pre.text.original(word.begin, word.begin + 1).begin);
  };
  if (std::none_of(pre.words.begin(), pre.words.end(), lacks)) return;
  rewrite_words(pre, [&](const PreTokenized& old, ByteSpan word, AlignedText& result) {
    const std::size_t start = old.text.original(word.begin, word.begin + 1).begin;
    if (lacks(word)) result.append(prefix, {start, start});
    result.append_from(old.text, word.begin, word.end);
  });
}

PreTokenizer make_byte_level(const json& config, const std::string& where, bool* raw_bytes) {
  const bool add_prefix_space = config.value("add_prefix_space", true);
  PreTokenizer split;
  if (config.value("use_regex", true))
    split = make_regex_splitter(kGpt2Pattern, Behavior::isolated, false, where);
  if (raw_bytes != nullptr) *raw_bytes = true;
  return [add_prefix_space, split, write = raw_bytes == nullptr](PreTokenized& pre) {
    if (add_prefix_space) prepend_words(pre, " ", [](std::size_t) { return true; });
    if (split) split(pre);
    if (!write) return;
    rewrite_words(pre, [](const PreTokenized& old, ByteSpan word, AlignedText& result) {
      for (std::size_t i = word.begin; i < word.end; ++i) {
        const auto byte = static_cast<unsigned char>(old.text.text()[i]);
        result.append(byte_characters()[byte], old.text.original(i, i + 1));
      }
    });
  };
}

PreTokenizer make_metaspace(const json& config, const std::string& where) {
  const std::string mark = config.value("replacement", std::string("\xE2\x96\x81"));
  if (mark.empty()) refuse_stage(where, "Metaspace replacement", mark);
  const std::string scheme =
      config.value("prepend_scheme", config.value("add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    refuse_stage(where, "Metaspace prepend_scheme", scheme);
  }
  PreTokenizer split;
  if (config.value("split", true)) {
    split = make_splitter(match_literal(mark), Behavior::merged_with_next);
  }
  return [mark, scheme, split](PreTokenized& pre) {
    rewrite_words(pre, [&](const PreTokenized& old, ByteSpan word, AlignedText& result) {
      for (std::size_t i = word.begin; i < word.end;) {
        const std::size_t space = std::min(old.text.text().find(' ', i), word.end);
        result.append_from(old.text, i, space);
        if (space < word.end) result.append(mark, old.text.original(space, space + 1));
        i = space + 1;
      }
    });
    if (scheme != "never") {
      prepend_words(pre, mark, [&](std::size_t start) { return scheme == "always" || start == 0; });
    }
    if (split) split(pre);
  };
}

PreTokenizer make_split(const json& config, const std::string& where) {
  const json& pattern = config.at("pattern");
  const Behavior behavior = parse_behavior(config, Behavior::isolated, where);
  const bool invert = config.value("invert", false);
  if (pattern.contains("Regex"))
    return make_regex_splitter(pattern.at("Regex"), behavior, invert, where);
  return make_splitter(match_literal(pattern.at("String")), behavior, invert);
}

/// Whitespace: words and runs of what is neither word nor white space.
void find_words_and_symbols(std::string_view text, const std::function<void(ByteSpan)>& found) {
  const auto kind = [](char32_t value) { return is_word(value) ? 0 : is_space(value) ? 1 : 2; };
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    const int first = kind(code_point_at(text, begin).value);
    while (end < text.size() && kind(code_point_at(text, end).value) == first)
      end += code_point_at(text, end).size;
    if (first != 1) found({begin, end});
  }
}

/// UnicodeScripts: a word ends where another script begins; Japanese kana count as Chinese
/// characters, and spaces and unassigned characters go with either. What stands before the first
/// character with a script is lost, as in `tokenizers`.
PreTokenizer make_scripts(const std::string& where) {
  const auto runs = std::make_shared<Regex>(script_pattern(), where);
  return [runs](PreTokenized& pre) {
    std::vector<ByteSpan> words;
    for (const ByteSpan word : pre.words) {
      const std::string_view text = pre.text.text().substr(word.begin, word.end - word.begin);
      const std::size_t first = words.size();
      runs->for_each(text, [&](ByteSpan run) {
        if (words.size() > first) words.back().end = word.begin + run.begin;
        words.push_back({word.begin + run.begin, word.end});
      });
    }
    pre.words = std::move(words);
  };
}

PreTokenizer make_sequence(const json& config, const std::string& where, bool* raw_bytes) {
  std::vector<PreTokenizer> stages;
  const json& list = stage_list(config, "pretokenizers", where);
  for (std::size_t i = 0; i < list.size(); ++i) {
    PreTokenizer stage =
        make_pre_tokenizer(list[i], where, i + 1 == list.size() ? raw_bytes : nullptr);
    if (stage) stages.push_back(std::move(stage));
  }
  return [stages](PreTokenized& pre) {
    for (const PreTokenizer& stage : stages) stage(pre);
  };
}

PreTokenizer make_by_character(const std::string& type, const json& config,
                               const std::string& where) {
  if (type == "Digits") {
    return make_splitter(match_characters(is_numeric), config.value("individual_digits", false)
                                                           ? Behavior::isolated
                                                           : Behavior::contiguous);
  }
  if (type == "Punctuation") {
    return make_splitter(match_characters(is_punctuation),
                         parse_behavior(config, Behavior::isolated, where));
  }
  if (type == "Whitespace") return make_splitter(find_words_and_symbols, Behavior::removed, true);
  if (type == "WhitespaceSplit")
    return make_splitter(match_characters(is_space), Behavior::removed);
  if (type == "BertPreTokenizer") {
    return [spaces = make_splitter(match_characters(is_space), Behavior::removed),
            marks = make_splitter(match_characters(is_punctuation), Behavior::isolated)](
               PreTokenized& pre) {
      spaces(pre);
      marks(pre);
    };
  }
  if (type == "CharDelimiterSplit")
    return make_splitter(match_literal(config.at("delimiter")), Behavior::removed);
  return nullptr;
}

}  // namespace

const std::vector<std::string>& byte_characters() {
  static const std::vector<std::string> table = [] {
    std::vector<std::string> characters(256);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      append_utf8(characters[byte], printable ? byte : next++);
    }
    return characters;
  }();
  return table;
}

std::optional<std::string> bytes_of_characters(std::string_view text) {
  static const auto table = [] {
    std::vector<std::int16_t> bytes(0x200, -1);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      bytes[code_point_at(byte_characters()[byte], 0).value] = static_cast<std::int16_t>(byte);
    }
    return bytes;
  }();
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint character = code_point_at(text, at);
    if (character.value >= table.size() || table[character.value] < 0) return std::nullopt;
    bytes += static_cast<char>(table[character.value]);
    at += character.size;
  }
  return bytes;
}

PreTokenizer make_pre_tokenizer(const json& config, const std::string& where, bool* raw_bytes) {
  if (config.is_null()) return nullptr;
  const std::string type = config.at("type").get<std::string>();
  if (type == "Sequence") return make_sequence(config, where, raw_bytes);
  if (type == "ByteLevel") return make_byte_level(config, where, raw_bytes);
  if (type == "Metaspace") return make_metaspace(config, where);
  if (type == "Split") return make_split(config, where);
  if (type == "UnicodeScripts") return make_scripts(where);
  if (PreTokenizer stage = make_by_character(type, config, where)) return stage;
  refuse_stage(where, "pre-tokenizer", type);
}

}  // namespace finetune
