#include "text/json_tokenizer.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"

#include <algorithm>

namespace finetune {

namespace {

using nlohmann::json;

/// A stage of the file, or null.
json stage_of(const json& file, const char* key) {
  const auto stage = file.find(key);
  return stage == file.end() ? json() : *stage;
}

}  // namespace

JsonTokenizer::JsonTokenizer(const std::filesystem::path& path, const TokenizerConfig& config)
    : where_(path.string()) {
  const json file = read_json_file(path);
  try {
    const json& model = file.at("model");
    // Files from before 2021 name no type; only BPE has merges.
    const std::string type = model.value("type", model.contains("merges") ? "BPE" : "without a type");
    if (type != "BPE") refuse_stage(where_, "model", type);
    normalizer_ = make_normalizer(stage_of(file, "normalizer"), where_);
    pre_tokenizer_ = make_pre_tokenizer(stage_of(file, "pre_tokenizer"), where_);
    decoder_ = make_decoder(stage_of(file, "decoder"), where_);
    model_ = std::make_unique<BpeModel>(model, where_);
    add_tokens(file, config);
    read_post_processor(stage_of(file, "post_processor"));
  } catch (const json::exception& error) {
    fail(ErrorKind::model, "{}: {}; the file is not what `tokenizers` writes", where_, error.what());
  }
}

void JsonTokenizer::add_tokens(const json& file, const TokenizerConfig& config) {
  std::int32_t largest = -1;
  for (const auto& [content, id] : model_->vocabulary()) largest = std::max(largest, id);
  contents_.resize(static_cast<std::size_t>(largest) + 1);
  special_.resize(contents_.size());
  for (const auto& [content, id] : model_->vocabulary()) {
    if (id < 0) fail(ErrorKind::model, "{}: token '{}' has the id {}, expected 0 or more", where_, content, id);
    contents_[static_cast<std::size_t>(id)] = content;
  }
  for (const json& token : stage_of(file, "added_tokens")) add_token(parse_added_token(token));
  for (const AddedToken& token : config.added) add_token(token);
  for (const std::string& content : config.specials) {
    AddedToken token;
    token.content = content;
    token.id = token_id(content).value_or(-1);
    token.special = true;
    if (token.id >= 0) add_token(token);
  }
  for (const auto& [content, token] : added_) {
    if (!token.normalized) {
      raw_matcher_.add(content, token);
      continue;
    }
    AlignedText pattern(content, 0);
    if (normalizer_) normalizer_(pattern);
    normalized_matcher_.add(pattern.text(), token);
    contents_[static_cast<std::size_t>(token.id)] = pattern.text();  // `tokenizers` decodes to this text too
  }
}

void JsonTokenizer::add_token(AddedToken token) {
  constexpr std::int32_t kLargestId = 1 << 26;  // a damaged id must not become an allocation
  token.id = model_->token_id(token.content).value_or(token.id);
  if (token.id < 0 || token.id > kLargestId) {
    fail(ErrorKind::model, "{}: added token '{}' has the id {}, expected 0 to {}", where_, token.content,
         token.id, kLargestId);
  }
  if (!added_.emplace(token.content, token).second) return;
  const auto index = static_cast<std::size_t>(token.id);
  if (index >= contents_.size()) {
    contents_.resize(index + 1);
    special_.resize(index + 1);
  }
  contents_[index] = token.content;
  special_[index] = token.special;
}

void JsonTokenizer::read_post_processor(const json& post) {
  if (post.is_null()) return;
  const std::string type = post.at("type").get<std::string>();
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence") {
    for (const json& stage : stage_list(post, "processors", where_)) read_post_processor(stage);
    return;
  }
  if (type != "TemplateProcessing") refuse_stage(where_, "post-processor", type);
  bool before = true;
  for (const json& item : post.at("single")) {
    if (item.contains("Sequence")) {
      before = false;
      continue;
    }
    const std::string name = item.at("SpecialToken").at("id").get<std::string>();
    const json& ids = post.at("special_tokens").at(name).at("ids");
    std::vector<std::int32_t>& side = before ? specials_.prefix_ids : specials_.suffix_ids;
    for (const json& id : ids) side.push_back(id.get<std::int32_t>());
  }
}

Encoding JsonTokenizer::encode(std::string_view text) const {
  require_utf8(text);
  Encoding out;
  for (const AddedTokenMatcher::Part& part : raw_matcher_.split(text)) {
    if (part.id >= 0) {
      out.ids.push_back(part.id);
      out.offsets.push_back({part.begin, part.end});
    } else {
      encode_plain(text.substr(part.begin, part.end - part.begin), part.begin, out);
    }
  }
  return out;
}

void JsonTokenizer::encode_plain(std::string_view text, std::size_t base, Encoding& out) const {
  AlignedText aligned(text, base);
  if (normalizer_) normalizer_(aligned);
  for (const AddedTokenMatcher::Part& part : normalized_matcher_.split(aligned.text())) {
    if (part.id >= 0) {
      out.ids.push_back(part.id);
      out.offsets.push_back(aligned.original(part.begin, part.end));
    } else {
      encode_words(aligned, {part.begin, part.end}, out);
    }
  }
}

void JsonTokenizer::encode_words(const AlignedText& text, ByteSpan range, Encoding& out) const {
  PreTokenized pre;
  const AlignedText* source = &text;
  std::vector<ByteSpan> words = {range};
  if (pre_tokenizer_) {
    pre.text = text;
    pre.words = words;
    pre_tokenizer_(pre);
    source = &pre.text;
    words = std::move(pre.words);
  }
  std::vector<WordToken> tokens;
  for (const ByteSpan word : words) {
    tokens.clear();
    model_->tokenize(std::string_view(source->text()).substr(word.begin, word.end - word.begin), tokens);
    for (const WordToken& token : tokens) {
      out.ids.push_back(token.id);
      out.offsets.push_back(source->original(word.begin + token.begin, word.begin + token.end));
    }
  }
}

std::string JsonTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (const std::int32_t id : ids) {
    require_id(id);
    const auto index = static_cast<std::size_t>(id);
    if (contents_[index].empty() || (skip_special_tokens && special_[index])) continue;
    tokens.push_back(contents_[index]);
  }
  if (!decoder_) return join(tokens, " ");
  decoder_(tokens);
  return join(tokens, "");
}

std::optional<std::int32_t> JsonTokenizer::token_id(std::string_view content) const {
  const auto added = added_.find(std::string(content));
  if (added != added_.end()) return added->second.id;
  return model_->token_id(content);
}

}  // namespace finetune
