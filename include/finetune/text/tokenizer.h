#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// Half-open range of byte offsets.
struct ByteSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const ByteSpan&) const = default;
};

/// Token ids of a text and the bytes of the text that each came from.
struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<ByteSpan>
      offsets;  ///< same length as ids; a token made from no text (a dummy prefix) is empty
};

/// Turns text into ids and back. Immutable after loading, so it can be used from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Encodes without adding special tokens; special tokens written in the text are recognised.
  /// Throws Error(data) for text that is not UTF-8.
  virtual Encoding encode(std::string_view text) const = 0;
  /// The text of the ids, as the peers' `decode` gives it (clean_up_tokenization_spaces off).
  /// Throws Error(data) for an id outside the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const = 0;

  /// Number of ids: one more than the largest.
  virtual std::int32_t vocab_size() const = 0;
  /// The id of an exact token content ("</s>"), if there is one.
  virtual std::optional<std::int32_t> token_id(std::string_view content) const = 0;

  /// What tokenizer_config.json and the files say; read by `load_tokenizer`.
  struct Specials {
    std::optional<std::int32_t> bos_id;
    std::optional<std::int32_t> eos_id;
    std::string bos_token, eos_token;
    bool add_bos = false;  ///< the tokenizer's own default when special tokens are asked for
    bool add_eos = false;
    /// What encode_with_specials puts around a text: usually {bos_id} and nothing, or nothing and
    /// nothing.
    std::vector<std::int32_t> prefix_ids, suffix_ids;
  };
  const Specials& specials() const { return specials_; }
  /// The same for tokenizers that were loaded from the same files; "" for one that was not loaded
  /// from a folder.
  const std::string& fingerprint() const { return fingerprint_; }

  /// encode plus what the tokenizer's own default adds (prefix_ids, suffix_ids; empty offsets at
  /// the ends).
  Encoding encode_with_specials(std::string_view text) const;

 protected:
  /// Throws Error(data) naming the first byte that is not UTF-8.
  static void require_utf8(std::string_view text);
  /// Throws Error(data) when `id` is not in the vocabulary.
  void require_id(std::int32_t id) const;
  Specials specials_;

 private:
  std::string fingerprint_;
  friend std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder);
};

/// Loads the tokenizer of a Hugging Face folder: `tokenizer.json` wins over `tokenizer.model`, as
/// with the peers' fast tokenizers; `tokenizer_config.json` gives the special tokens where present.
/// Throws Error(model) naming what is missing or not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder);

/// The tokenizer files of a folder that a result carries along, byte for byte.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& folder);

}  // namespace finetune
