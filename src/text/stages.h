#pragma once

#include "text/aligned_text.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace finetune {

/// The stages of a tokenizer.json pipeline: normalizer -> pre-tokenizer -> model -> decoder. Each is built from
/// its JSON object ("type" and settings, as `tokenizers` writes them); `where` begins error messages. A stage
/// this version does not have is refused with Error(model) that names it, never skipped. Stages are
/// immutable and safe from several threads.

/// Rewrites a text: Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD.
using Normalizer = std::function<void(AlignedText&)>;
/// Cuts the words of a text into smaller ones, and may rewrite them: Sequence, ByteLevel, Metaspace, Split,
/// Digits, Punctuation.
using PreTokenizer = std::function<void(PreTokenized&)>;
/// Rewrites the list of tokens whose concatenation is the decoded text: Sequence, ByteLevel, ByteFallback,
/// Fuse, Metaspace, Replace, Strip.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// Null for `null`: the stage does nothing.
Normalizer make_normalizer(const nlohmann::json& config, const std::string& where);
PreTokenizer make_pre_tokenizer(const nlohmann::json& config, const std::string& where);
/// Null for `null`: tokens are joined by spaces, as `tokenizers` does.
Decoder make_decoder(const nlohmann::json& config, const std::string& where);

/// The members of a Sequence stage, which the files spell in one of two ways ("pretokenizers" ...).
const nlohmann::json& stage_list(const nlohmann::json& config, const char* key, const std::string& where);

/// "{where}: {kind} 'X' is not in this version ..." as Error(model).
[[noreturn]] void refuse_stage(const std::string& where, const char* kind, const std::string& type);

/// The byte-to-character table of GPT-2: printable bytes stand for themselves, the others for U+0100 and up.
const std::vector<std::string>& byte_characters();

}  // namespace finetune
