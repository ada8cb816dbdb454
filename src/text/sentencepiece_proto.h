#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The few facts of a sentencepiece ModelProto that the library does not tell (sentencepiece_model.proto).
struct SentencePieceFacts {
  bool add_dummy_prefix = true;
  std::vector<std::int32_t> user_defined;  ///< ids of pieces of type USER_DEFINED
};

/// Reads the serialized model; parts that do not parse are left at their defaults (the library judges the file).
SentencePieceFacts read_sentencepiece_facts(std::string_view model);

/// The serialized model with another add_dummy_prefix. Protocol buffers merge repeated messages and the last
/// value wins, so it is enough to append one.
std::string with_dummy_prefix(std::string model, bool add_dummy_prefix);

}  // namespace finetune
