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

JsonTokenizer::JsonTokenizer(TokenizerFile file, const TokenizerConfig& config,
                             std::unique_ptr<WordModel> model)
    : where_(file.where), model_(std::move(model)) {
  try {
    read(file, config);
  } catch (const json::exception& error) {
    fail(ErrorKind::model, "{}: {}; the file is not what `tokenizers` writes", where_,
         without_exception_name(error.what()));
  }
}

void JsonTokenizer::read(TokenizerFile& file, const TokenizerConfig& config) {
  if (!model_) model_ = make_word_model(file);
  normalizer_ = make_normalizer(stage_of(file.json, "normalizer"), where_);
  const json pre_tokenizer = stage_of(file.json, "pre_tokenizer");
  bool raw_bytes = false;
  pre_tokenizer_ = make_pre_tokenizer(pre_tokenizer, where_, &raw_bytes);
  if (raw_bytes && !model_->take_raw_bytes())
    pre_tokenizer_ = make_pre_tokenizer(pre_tokenizer, where_);
  decoder_ = make_decoder(stage_of(file.json, "decoder"), where_);
  add_tokens(file.json, config);
  read_post_processor(stage_of(file.json, "post_processor"));
  for (const auto& ids : {specials_.prefix_ids, specials_.suffix_ids}) {
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < vocab_size_) continue;
      fail(ErrorKind::model,
           "{}: the post-processor adds the id {}, but the tokenizer has {} tokens", where_, id,
           vocab_size_);
    }
  }
}

void JsonTokenizer::add_tokens(const json& file, const TokenizerConfig& config) {
  vocab_size_ = model_->vocabulary().id_limit();
  next_id_ = static_cast<std::int32_t>(model_->vocabulary().size());
  for (const json& item : stage_of(file, "added_tokens")) {
    AddedToken token = parse_added_token(item);
    // Where the model does not know the token, `tokenizers` gives it the next free id, whatever the
    // file says.
    token.id = token_id(token.content).value_or(next_id_);
    added_.erase(token.content);  // of two with the same content, the last one counts
    add_token(token);
  }
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
    normalized_matcher_.add(std::string(pattern.text()), token);
    added_contents_[token.id] = pattern.text();  // `tokenizers` decodes to this text too
  }
}

void JsonTokenizer::add_token(AddedToken token) {
  constexpr std::size_t kMaxBytes = 4096;
  token.id = model_->vocabulary().find(token.content).value_or(token.id);
  if (token.id < 0 || token.id >= Vocabulary::kMaxIds) {
    fail(ErrorKind::model, "{}: added token '{}' has the id {}, expected 0 to {}", where_,
         token.content, token.id, Vocabulary::kMaxIds - 1);
  }
  if (token.content.size() > kMaxBytes) {
    fail(ErrorKind::model, "{}: the added token {} has {} bytes, expected at most {}", where_,
         token.id, token.content.size(), kMaxBytes);
  }
  if (!added_.emplace(token.content, token).second) return;
  vocab_size_ = std::max(vocab_size_, token.id + 1);
  next_id_ = std::max(next_id_, token.id + 1);
  added_contents_[token.id] = token.content;
  special_[token.id] = token.special;
}

void JsonTokenizer::surround(std::vector<std::int32_t> prefix,
                             const std::vector<std::int32_t>& suffix) {
  prefix.insert(prefix.end(), specials_.prefix_ids.begin(), specials_.prefix_ids.end());
  specials_.prefix_ids = std::move(prefix);
  specials_.suffix_ids.insert(specials_.suffix_ids.end(), suffix.begin(), suffix.end());
}

void JsonTokenizer::read_post_processor(const json& post) {
  if (post.is_null()) return;
  const std::string type = post.at("type").get<std::string>();
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence") {
    for (const json& stage : stage_list(post, "processors", where_)) read_post_processor(stage);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    surround({post.at("cls").at(1).get<std::int32_t>()},
             {post.at("sep").at(1).get<std::int32_t>()});
  } else if (type == "TemplateProcessing") {
    read_template(post);
  } else {
    refuse_stage(where_, "post-processor", type);
  }
}

void JsonTokenizer::read_template(const json& post) {
  std::vector<std::int32_t> prefix, suffix;
  int texts = 0;
  for (const json& item : post.at("single")) {
    if (item.contains("Sequence")) {
      ++texts;
      continue;
    }
    const std::string name = item.at("SpecialToken").at("id").get<std::string>();
    for (const json& id : post.at("special_tokens").at(name).at("ids")) {
      (texts == 0 ? prefix : suffix).push_back(id.get<std::int32_t>());
    }
  }
  if (texts != 1) {
    fail(ErrorKind::model,
         "{}: the post-processor's template for one text has {} places for it, expected 1", where_,
         texts);
  }
  surround(std::move(prefix), suffix);
}

Encoding JsonTokenizer::encode(std::string_view text) const {
  require_utf8(text);
  Encoding out;
  constexpr std::size_t kUsualTokenBytes = 3;
  out.ids.reserve(text.size() / kUsualTokenBytes + 8);
  out.offsets.reserve(text.size() / kUsualTokenBytes + 8);
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
  const std::vector<AddedTokenMatcher::Part> parts = normalized_matcher_.split(aligned.text());
  if (parts.size() == 1 && parts[0].id < 0) return encode_words(std::move(aligned), out);
  for (const AddedTokenMatcher::Part& part : parts) {
    if (part.id >= 0) {
      out.ids.push_back(part.id);
      out.offsets.push_back(aligned.original(part.begin, part.end));
    } else {
      encode_words(aligned.slice(part.begin, part.end), out);
    }
  }
}

void JsonTokenizer::encode_words(AlignedText text, Encoding& out) const {
  const std::size_t size = text.size();
  PreTokenized pre{std::move(text), {{0, size}}};
  if (pre_tokenizer_) pre_tokenizer_(pre);
  const std::string_view all = pre.text.text();
  std::vector<WordToken> tokens;
  for (const ByteSpan word : pre.words) {
    tokens.clear();
    model_->tokenize(all.substr(word.begin, word.end - word.begin), tokens);
    for (const WordToken& token : tokens) {
      out.ids.push_back(token.id);
      out.offsets.push_back(pre.text.original(word.begin + token.begin, word.begin + token.end));
    }
  }
}

std::string JsonTokenizer::decode(std::span<const std::int32_t> ids,
                                  bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (const std::int32_t id : ids) {
    require_id(id);
    const auto special = special_.find(id);
    if (skip_special_tokens && special != special_.end() && special->second) continue;
    if (const auto added = added_contents_.find(id); added != added_contents_.end()) {
      tokens.push_back(added->second);
    } else if (const std::string_view* content = model_->vocabulary().content(id)) {
      tokens.emplace_back(*content);
    }
  }
  if (!decoder_) return join(tokens, " ");
  decoder_(tokens);
  return join(tokens, "");
}

std::optional<std::int32_t> JsonTokenizer::token_id(std::string_view content) const {
  const auto added = added_.find(std::string(content));
  if (added != added_.end()) return added->second.id;
  return model_->vocabulary().find(content);
}

}  // namespace finetune
