#pragma once

#include "text/aligned_text.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// The stages of a tokenizer.json pipeline: normalizer -> pre-tokenizer -> model -> decoder. Each
/// is built from its JSON object ("type" and settings, as `tokenizers` writes them); `where` begins
/// error messages. A stage that is not known is refused with Error(model) that names it, never
/// skipped. Stages are immutable and safe from several threads.

/// Rewrites a text.
using Normalizer = std::function<void(AlignedText&)>;
/// Cuts the words of a text into smaller ones, and may rewrite them. None of the words is empty.
using PreTokenizer = std::function<void(PreTokenized&)>;
/// Rewrites the list of tokens whose concatenation is the decoded text.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// Null for `null`: the stage does nothing.
Normalizer make_normalizer(const nlohmann::json& config, const std::string& where);
/// With `raw_bytes`, a ByteLevel stage at the end leaves out the step that writes bytes as
/// characters, and
/// `*raw_bytes` says that it did: the model then takes the bytes as they are.
PreTokenizer make_pre_tokenizer(const nlohmann::json& config, const std::string& where,
                                bool* raw_bytes = nullptr);
/// Null for `null`: tokens are joined by spaces, as `tokenizers` does.
Decoder make_decoder(const nlohmann::json& config, const std::string& where);

/// NFC, NFD, NFKC or NFKD; null for another type. (unicode_normalizer.cpp)
Normalizer make_unicode_normalizer(const std::string& type);
/// Nmt, Lowercase, StripAccents, Strip and BertNormalizer, which work character by character; null
/// for another type. (character_normalizer.cpp)
Normalizer make_character_normalizer(const std::string& type, const nlohmann::json& config);
/// Precompiled: the rewriting rules of a sentencepiece model. (charsmap.cpp)
Normalizer make_precompiled_normalizer(const nlohmann::json& config, const std::string& where);
/// WordPiece, BPEDecoder and CTC, which come with word pieces; null for another type.
/// (word_decoder.cpp)
Decoder make_word_decoder(const std::string& type, const nlohmann::json& config);

/// Replaces characters: `write(character, bytes)` returns the new text, or a view of the old bytes
/// for no change.
using RewriteCharacter = std::function<std::string_view(char32_t value, std::string_view bytes)>;
void rewrite_characters(AlignedText& text, const RewriteCharacter& write);

/// The members of a Sequence stage. Throws Error(model) where there is no such list.
const nlohmann::json& stage_list(const nlohmann::json& config, const char* key,
                                 const std::string& where);

/// "{where}: {kind} 'X' is not in this version ..." as Error(model).
[[noreturn]] void refuse_stage(const std::string& where, const char* kind, const std::string& type);

/// The byte-to-character table of GPT-2: printable bytes stand for themselves, the others for
/// U+0100 and up.
const std::vector<std::string>& byte_characters();
/// The bytes of a text written in those characters; nothing when it holds another character.
std::optional<std::string> bytes_of_characters(std::string_view text);

}  // namespace finetune
