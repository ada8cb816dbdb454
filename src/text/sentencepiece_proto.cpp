#include "text/sentencepiece_proto.h"

#include <cstring>
#include <optional>

namespace finetune {

namespace {

/// One field of a serialized message: its number and either a number or bytes.
struct Field {
  std::uint64_t number = 0, value = 0;
  std::string_view bytes;
};

std::optional<std::uint64_t> read_varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

std::optional<Field> read_field(std::string_view& in) {
  enum WireType { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  const auto tag = read_varint(in);
  if (!tag) return std::nullopt;
  Field field{*tag >> 3, 0, {}};
  const std::uint64_t type = *tag & 7;
  std::uint64_t size = type == fixed64 ? 8 : type == fixed32 ? 4 : 0;
  if (type == varint || type == bytes) {
    const auto value = read_varint(in);
    if (!value) return std::nullopt;
    field.value = *value;
    if (type == bytes) size = *value;
  } else if (size == 0) {
    return std::nullopt;
  }
  if (size > in.size()) return std::nullopt;
  field.bytes = in.substr(0, size);
  in.remove_prefix(size);
  return field;
}

/// Calls `read(field)` for the fields of a message, as far as they parse.
template <typename Read>
void for_each_field(std::string_view message, const Read& read) {
  while (const auto field = read_field(message)) read(*field);
}

SentencePiece read_piece(std::string_view message) {
  SentencePiece piece;
  for_each_field(message, [&](const Field& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == sizeof(float)) {
      std::memcpy(&piece.score, field.bytes.data(), sizeof(float));
    }
    if (field.number == 3) piece.kind = field.value;
  });
  return piece;
}

}  // namespace

SentencePieceFacts read_sentencepiece_facts(std::string_view model) {
  enum ModelField { pieces = 1, trainer_spec = 2, normalizer_spec = 3, denormalizer_spec = 5 };
  constexpr std::uint64_t kModelType = 3, kUnigram = 1, kByteFallback = 35;  // of TrainerSpec
  constexpr std::uint64_t kCharsmap = 2, kAddDummyPrefix = 3;                // of NormalizerSpec
  SentencePieceFacts facts;
  for_each_field(model, [&](const Field& field) {
    if (field.number == pieces) facts.pieces.push_back(read_piece(field.bytes));
    if (field.number == trainer_spec) {
      for_each_field(field.bytes, [&](const Field& part) {
        if (part.number == kModelType) facts.unigram = part.value == kUnigram;
        if (part.number == kByteFallback) facts.byte_fallback = part.value != 0;
      });
    }
    if (field.number == normalizer_spec) {
      for_each_field(field.bytes, [&](const Field& part) {
        if (part.number == kCharsmap) facts.charsmap = part.bytes;
        if (part.number == kAddDummyPrefix) facts.add_dummy_prefix = part.value != 0;
      });
    }
    if (field.number == denormalizer_spec) {
      for_each_field(field.bytes, [&](const Field& part) {
        if (part.number == kCharsmap) facts.denormalizer_charsmap = part.bytes;
      });
    }
  });
  return facts;
}

std::string with_dummy_prefix(std::string model, bool add_dummy_prefix) {
  // Field 3 (normalizer_spec) of two bytes: its field 3 (add_dummy_prefix) as a number.
  model += "\x1A\x02\x18";
  model += add_dummy_prefix ? '\x01' : '\0';
  return model;
}

}  // namespace finetune
