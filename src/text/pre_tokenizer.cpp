#include "finetune/base/error.h"
#include "text/regex.h"
#include "text/stages.h"
#include "text/utf8.h"

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

/// All of the word as stretches, matched and not in turn.
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
}

PreTokenizer make_splitter(FindMatches find, Behavior behavior, bool invert = false) {
  return [find = std::move(find), behavior, invert](PreTokenized& pre) {
    std::vector<ByteSpan> words;
    for (const ByteSpan word : pre.words) {
      const std::string_view text =
          std::string_view(pre.text.text()).substr(word.begin, word.end - word.begin);
      append_words(stretches(text, find, invert), behavior, word.begin, words);
    }
    pre.words = std::move(words);
  };
}

FindMatches match_regex(const std::string& pattern, const std::string& where) {
  return [regex = std::make_shared<Regex>(pattern, where)](std::string_view word, const auto& found) {
    regex->for_each(word, found);
  };
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

/// Rewrites every word: `write(pre, word, result)` appends the word's new text to `result`.
template <typename Write>
void rewrite_words(PreTokenized& pre, const Write& write) {
  AlignedText result;
  result.reserve(pre.text.text().size() + pre.text.text().size() / 2 + 8);
  for (ByteSpan& word : pre.words) {
    const std::size_t begin = result.text().size();
    write(pre, word, result);
    word = {begin, result.text().size()};
  }
  pre.text = std::move(result);
}

/// Puts `prefix` before the words that do not begin with it and for which `wanted` holds.
template <typename Wanted>
void prepend_words(PreTokenized& pre, const std::string& prefix, const Wanted& wanted) {
  rewrite_words(pre, [&](const PreTokenized& old, ByteSpan word, AlignedText& result) {
    const std::size_t start = old.text.original(word.begin, word.begin + 1).begin;
    if (old.text.text().compare(word.begin, prefix.size(), prefix) != 0 && wanted(start)) {
      result.append(prefix, {start, start});
    }
    result.append_from(old.text, word.begin, word.end);
  });
}

PreTokenizer make_byte_level(const json& config, const std::string& where) {
  constexpr const char* kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  const bool add_prefix_space = config.value("add_prefix_space", true);
  PreTokenizer split;
  if (config.value("use_regex", true)) {
    split = make_splitter(match_regex(kGpt2Pattern, where), Behavior::isolated);
  }
  return [add_prefix_space, split](PreTokenized& pre) {
    if (add_prefix_space) prepend_words(pre, " ", [](std::size_t) { return true; });
    if (split) split(pre);
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
  FindMatches find = pattern.contains("Regex")
                         ? match_regex(pattern.at("Regex").get<std::string>(), where)
                         : match_literal(pattern.at("String").get<std::string>());
  return make_splitter(std::move(find), parse_behavior(config, Behavior::isolated, where),
                       config.value("invert", false));
}

}  // namespace

const std::vector<std::string>& byte_characters() {
  static const std::vector<std::string> table = [] {
    std::vector<std::string> characters(256);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      append_utf8(characters[byte], printable ? byte : next++);
    }
    return characters;
  }();
  return table;
}

PreTokenizer make_pre_tokenizer(const json& config, const std::string& where) {
  if (config.is_null()) return nullptr;
  const std::string type = config.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<PreTokenizer> stages;
    for (const json& stage : stage_list(config, "pretokenizers", where)) {
      if (PreTokenizer pre = make_pre_tokenizer(stage, where)) stages.push_back(std::move(pre));
    }
    return [stages](PreTokenized& pre) {
      for (const PreTokenizer& stage : stages) stage(pre);
    };
  }
  if (type == "ByteLevel") return make_byte_level(config, where);
  if (type == "Metaspace") return make_metaspace(config, where);
  if (type == "Split") return make_split(config, where);
  if (type == "Digits") {
    return make_splitter(match_characters(is_numeric), config.value("individual_digits", false)
                                                           ? Behavior::isolated
                                                           : Behavior::contiguous);
  }
  if (type == "Punctuation") {
    return make_splitter(match_characters(is_punctuation),
                         parse_behavior(config, Behavior::isolated, where));
  }
  refuse_stage(where, "pre-tokenizer", type);
}

}  // namespace finetune
