#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A piece of the model: its text, score and kind.
struct SentencePiece {
  enum Kind : std::uint64_t {
    normal = 1,
    unknown = 2,
    control = 3,
    user_defined = 4,
    unused = 5,
    byte = 6
  };
  std::string_view text;
  float score = 0;
  std::uint64_t kind = normal;
};

/// What a serialized ModelProto says that the library does not tell (sentencepiece_model.proto).
/// Views into it.
struct SentencePieceFacts {
  bool unigram = true;  ///< trainer_spec.model_type is UNIGRAM
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  std::string_view charsmap;  ///< normalizer_spec.precompiled_charsmap
  std::string_view denormalizer_charsmap;
  std::vector<SentencePiece> pieces;  ///< by id
};

/// Reads the serialized model; parts that do not parse are left at their defaults (the library
/// judges the file).
SentencePieceFacts read_sentencepiece_facts(std::string_view model);

/// The serialized model with another add_dummy_prefix. Protocol buffers merge repeated messages and
/// the last value wins, so it is enough to append one.
std::string with_dummy_prefix(std::string model, bool add_dummy_prefix);

}  // namespace finetune
