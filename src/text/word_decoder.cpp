#include "text/stages.h"

#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string result;
  std::size_t done = 0;
  for (std::size_t at; (at = text.find(from, done)) != std::string::npos; done = at + from.size()) {
    result.append(text, done, at - done).append(to);
  }
  if (done > 0) text = result.append(text, done);
}

/// Takes away the spaces that English does not write, in the order of `tokenizers`.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

Decoder make_word_piece(const json& config) {
  const std::string prefix = config.value("prefix", std::string("##"));
  const bool cleanup = config.value("cleanup", true);
  return [prefix, cleanup](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && tokens[i].starts_with(prefix)) {
        tokens[i].erase(0, prefix.size());
      } else if (i > 0) {
        tokens[i].insert(0, " ");
      }
      if (cleanup) clean_up(tokens[i]);
    }
  };
}

Decoder make_bpe(const json& config) {
  const std::string suffix = config.value("suffix", std::string("</w>"));
  return [suffix](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
  };
}

Decoder make_ctc(const json& config) {
  const std::string pad = config.value("pad_token", std::string("<pad>"));
  const std::string delimiter = config.value("word_delimiter_token", std::string("|"));
  const bool cleanup = config.value("cleanup", true);
  return [pad, delimiter, cleanup](std::vector<std::string>& tokens) {
    std::vector<std::string> result;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && tokens[i] == tokens[i - 1]) continue;
      std::string text = tokens[i];
      replace_all(text, pad, "");
      if (cleanup) {
        clean_up(text);
        replace_all(text, delimiter, " ");
      }
      if (!text.empty()) result.push_back(std::move(text));
    }
    tokens = std::move(result);
  };
}

}  // namespace

Decoder make_word_decoder(const std::string& type, const json& config) {
  if (type == "WordPiece") return make_word_piece(config);
  if (type == "BPEDecoder") return make_bpe(config);
  if (type == "CTC") return make_ctc(config);
  return nullptr;
}

}  // namespace finetune
