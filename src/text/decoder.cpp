#include "finetune/base/text.h"
#include "text/regex.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <charconv>
#include <optional>
#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

/// The byte that "<0x0A>" stands for.
std::optional<char> byte_of(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned value = 0;
  const char* end = token.data() + 5;
  const auto [stop, error] = std::from_chars(token.data() + 3, end, value, 16);
  if (error != std::errc() || stop != end) return std::nullopt;
  return static_cast<char>(value);
}

void decode_byte_fallback(std::vector<std::string>& tokens) {
  std::vector<std::string> result;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_invalid_utf8(bytes) == std::string::npos) {
      result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = byte_of(token)) {
      bytes += *byte;
    } else {
      flush();
      result.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(result);
}

void fuse(std::vector<std::string>& tokens) {
  std::string whole;
  for (const std::string& token : tokens) whole += token;
  tokens.assign(1, std::move(whole));
}

void decode_byte_level(std::vector<std::string>& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += bytes_of_characters(token).value_or(token);
  tokens.assign(1, utf8_lossy(bytes));
}

Decoder make_strip(const json& config) {
  const std::string content = config.at("content").get<std::string>();
  const auto start = config.at("start").get<std::size_t>();
  const auto stop = config.at("stop").get<std::size_t>();
  return [content, start, stop](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      for (std::size_t i = 0; i < start && token.starts_with(content); ++i) {
        token.erase(0, content.size());
      }
      for (std::size_t i = 0; i < stop && token.ends_with(content); ++i) {
        token.erase(token.size() - content.size());
      }
    }
  };
}

/// `text` with every span that `regex` or `literal` finds replaced by `content`.
Decoder make_replace(const json& config, const std::string& where) {
  const json& pattern = config.at("pattern");
  const bool is_regex = pattern.contains("Regex");
  const std::string source = pattern.at(is_regex ? "Regex" : "String").get<std::string>();
  const std::string content = config.at("content").get<std::string>();
  const auto regex = is_regex ? std::make_shared<Regex>(source, where) : nullptr;
  return [regex, source, content](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      std::string result;
      std::size_t done = 0;
      const auto found = [&](ByteSpan match) {
        result.append(token, done, match.begin - done).append(content);
        done = match.end;
      };
      if (regex) {
        regex->for_each(token, found);
      } else {
        for (std::size_t at = token.find(source); at != std::string::npos && !source.empty();
             at = token.find(source, at + source.size())) {
          found({at, at + source.size()});
        }
      }
      token = result.append(token, done);
    }
  };
}

Decoder make_metaspace(const json& config, const std::string& where) {
  const std::string mark = config.value("replacement", std::string("\xE2\x96\x81"));
  if (mark.empty()) refuse_stage(where, "Metaspace replacement", mark);
  const bool drop_first =
      config.value("prepend_scheme", config.value("add_prefix_space", true) ? "always" : "never") !=
      "never";
  return [mark, drop_first](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::string result;
      std::size_t done = 0;
      for (std::size_t at; (at = tokens[i].find(mark, done)) != std::string::npos;
           done = at + mark.size()) {
        result.append(tokens[i], done, at - done);
        if (i > 0 || !drop_first) result += ' ';
      }
      tokens[i] = result.append(tokens[i], done);
    }
  };
}

}  // namespace

Decoder make_decoder(const json& config, const std::string& where) {
  if (config.is_null()) return nullptr;
  const std::string type = config.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Decoder> stages;
    for (const json& stage : stage_list(config, "decoders", where)) {
      if (Decoder decoder = make_decoder(stage, where)) stages.push_back(std::move(decoder));
    }
    return [stages](std::vector<std::string>& tokens) {
      for (const Decoder& stage : stages) stage(tokens);
    };
  }
  if (type == "ByteFallback") return decode_byte_fallback;
  if (type == "ByteLevel") return decode_byte_level;
  if (type == "Fuse") return fuse;
  if (type == "Metaspace") return make_metaspace(config, where);
  if (type == "Replace") return make_replace(config, where);
  if (type == "Strip") return make_strip(config);
  if (Decoder decoder = make_word_decoder(type, config)) return decoder;
  refuse_stage(where, "decoder", type);
}

}  // namespace finetune
