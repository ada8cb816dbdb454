#include "finetune/text/tokenizer.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "text/json_tokenizer.h"
#include "text/rank_file.h"
#include "text/sentencepiece_tokenizer.h"

#include <algorithm>

namespace finetune {

namespace {

/// The name a tokenizer file may have; a lone file of another name but this ending works too.
std::filesystem::path find_file(const std::filesystem::path& folder, const std::string& name,
                                const std::string& ending) {
  if (std::filesystem::exists(folder / name)) return folder / name;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (entry.is_regular_file() && file.ends_with(ending)) found.push_back(entry.path());
  }
  return found.size() == 1 ? found.front() : std::filesystem::path();
}

/// Contents and ids of BOS and EOS: the configuration's, else config.json's, else what the model
/// file says.
void name_specials(const TokenizerConfig& config, const Tokenizer& tokenizer,
                   Tokenizer::Specials& specials) {
  const auto settle = [&](const std::string& content, std::optional<std::int32_t> fallback,
                          std::optional<std::int32_t>& id, std::string& token) {
    if (!content.empty()) {
      id = tokenizer.token_id(content);
      token = content;
      return;
    }
    if (fallback && *fallback >= 0 && *fallback < tokenizer.vocab_size()) id = fallback;
    if (!id) return;
    const std::int32_t one[] = {*id};
    token = tokenizer.decode(one, false);
    // Text that does not come back as this token cannot stand for it.
    if (tokenizer.token_id(token) != id) token.clear();
  };
  settle(config.bos_token, config.bos_id, specials.bos_id, specials.bos_token);
  settle(config.eos_token, config.eos_id, specials.eos_id, specials.eos_token);
}

/// add_bos_token and add_eos_token where given win over the file's own post-processor, as in
/// transformers.
void settle_added_specials(const TokenizerConfig& config, bool add_bos_otherwise,
                           Tokenizer::Specials& specials) {
  const auto contains = [](const std::vector<std::int32_t>& ids, std::optional<std::int32_t> id) {
    return id && std::find(ids.begin(), ids.end(), *id) != ids.end();
  };
  specials.add_bos =
      contains(specials.prefix_ids, specials.bos_id) || (add_bos_otherwise && specials.bos_id);
  specials.add_eos = contains(specials.suffix_ids, specials.eos_id);
  const bool given = config.add_bos || config.add_eos;
  if (!given && !add_bos_otherwise) return;
  specials.add_bos = config.add_bos.value_or(specials.add_bos) && specials.bos_id;
  specials.add_eos = config.add_eos.value_or(specials.add_eos) && specials.eos_id;
  specials.prefix_ids.clear();
  specials.suffix_ids.clear();
  if (specials.add_bos) specials.prefix_ids.push_back(*specials.bos_id);
  if (specials.add_eos) specials.suffix_ids.push_back(*specials.eos_id);
}

/// vocab.json and merges.txt say nothing about the stages around them.
std::unique_ptr<Tokenizer> load_vocab_and_merges(const std::filesystem::path& vocab,
                                                 const std::filesystem::path& merges,
                                                 const TokenizerConfig& config) {
  const std::string& family =
      config.tokenizer_class.empty() ? config.family : config.tokenizer_class;
  const auto is_one_of = [&](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const char* name) { return family.starts_with(name); });
  };
  const bool qwen2 = is_one_of({"qwen2", "qwen3"});
  if (!qwen2 && !family.empty() &&
      !is_one_of({"gpt2", "gpt_neo", "codegen", "phi", "starcoder", "gpt_bigcode"})) {
    fail(ErrorKind::model,
         "{}: how '{}' splits text is not in this version, known are GPT-2 and Qwen2; use a folder "
         "with "
         "tokenizer.json",
         vocab.string(), family);
  }
  TokenizerFile file = read_vocab_and_merges(vocab, merges, qwen2 ? "qwen2" : "gpt2",
                                             config.add_prefix_space.value_or(false));
  return std::make_unique<JsonTokenizer>(std::move(file), config);
}

std::unique_ptr<Tokenizer> load_model_file(const std::filesystem::path& path,
                                           const TokenizerConfig& config, bool& is_sentencepiece) {
  std::string text = read_model_text(path);
  if (is_rank_file(text)) return load_rank_file(path, text, config);
  is_sentencepiece = true;
  return std::make_unique<SentencePieceTokenizer>(path, std::move(text), config);
}

std::unique_ptr<Tokenizer> load_files(const std::filesystem::path& folder,
                                      const TokenizerConfig& config, bool& is_sentencepiece) {
  if (const auto json = find_file(folder, "tokenizer.json", "tokenizer.json"); !json.empty()) {
    return std::make_unique<JsonTokenizer>(read_tokenizer_file(json), config);
  }
  if (const auto model = find_file(folder, "tokenizer.model", ".model"); !model.empty()) {
    return load_model_file(model, config, is_sentencepiece);
  }
  const auto vocab = find_file(folder, "vocab.json", "vocab.json"),
             merges = find_file(folder, "merges.txt", "merges.txt");
  if (!vocab.empty() && !merges.empty()) return load_vocab_and_merges(vocab, merges, config);
  if (const auto ranks = find_file(folder, "qwen.tiktoken", ".tiktoken"); !ranks.empty()) {
    return load_rank_file(ranks, read_model_text(ranks), config);
  }
  fail(ErrorKind::model,
       "{}: no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or *.tiktoken; copy "
       "the tokenizer files of the "
       "model into it",
       folder.string());
}

/// A hash of every file that shapes the tokens; config.json is one, for it may name BOS and EOS.
std::string fingerprint_of(const std::filesystem::path& folder) {
  std::string hashes;
  std::vector<std::filesystem::path> files = tokenizer_files(folder);
  for (const auto& entry :
       std::filesystem::directory_iterator(folder)) {  // a lone file may have any name
    const std::string ending = entry.path().extension().string();
    if (ending == ".model" || ending == ".tiktoken") files.push_back(entry.path());
  }
  if (std::filesystem::is_regular_file(folder / "config.json"))
    files.push_back(folder / "config.json");
  std::sort(files.begin(), files.end());
  for (const std::filesystem::path& file : files)
    hashes += file.filename().string() + " " + file_hash(file, ErrorKind::model) + "\n";
  return content_hash(hashes);
}

}  // namespace

void Tokenizer::require_utf8(std::string_view text) {
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == std::string_view::npos) return;
  fail(ErrorKind::data,
       "the text is not UTF-8: byte {} is 0x{:02X}; convert it before it is tokenized", bad,
       static_cast<unsigned char>(text[bad]));
}

void Tokenizer::require_id(std::int32_t id) const {
  if (id >= 0 && id < vocab_size()) return;
  fail(ErrorKind::data, "token id {} is outside of the tokenizer's vocabulary of {} tokens", id,
       vocab_size());
}

Encoding Tokenizer::encode_with_specials(std::string_view text) const {
  Encoding result = encode(text);
  const auto& [prefix, suffix] = std::tie(specials_.prefix_ids, specials_.suffix_ids);
  result.ids.insert(result.ids.begin(), prefix.begin(), prefix.end());
  result.offsets.insert(result.offsets.begin(), prefix.size(), ByteSpan{0, 0});
  result.ids.insert(result.ids.end(), suffix.begin(), suffix.end());
  result.offsets.insert(result.offsets.end(), suffix.size(), ByteSpan{text.size(), text.size()});
  return result;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) {
    fail(ErrorKind::model,
         "{}: no such folder; a tokenizer is read from a Hugging Face model folder",
         folder.string());
  }
  const TokenizerConfig config = read_tokenizer_config(folder);
  bool is_sentencepiece = false;
  std::unique_ptr<Tokenizer> tokenizer = load_files(folder, config, is_sentencepiece);
  name_specials(config, *tokenizer, tokenizer->specials_);
  // LlamaTokenizer and its relatives, for whom tokenizer.model files are made, add BOS unless told
  // otherwise.
  settle_added_specials(config, is_sentencepiece, tokenizer->specials_);
  tokenizer->fingerprint_ = fingerprint_of(folder);
  return tokenizer;
}

std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "qwen.tiktoken", "chat_template.jinja"}) {
    if (std::filesystem::is_regular_file(folder / name)) files.push_back(folder / name);
  }
  return files;
}

}  // namespace finetune
