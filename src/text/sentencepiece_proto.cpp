#include "text/sentencepiece_proto.h"

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

}  // namespace

SentencePieceFacts read_sentencepiece_facts(std::string_view model) {
  constexpr std::uint64_t kPieces = 1, kNormalizerSpec = 3;  // fields of ModelProto
  constexpr std::uint64_t kPieceType = 3, kUserDefined = 4;  // of ModelProto.SentencePiece
  constexpr std::uint64_t kAddDummyPrefix = 3;               // of NormalizerSpec
  SentencePieceFacts facts;
  std::int32_t id = 0;
  while (const auto field = read_field(model)) {
    std::string_view message = field->bytes;
    if (field->number == kPieces) {
      while (const auto part = read_field(message)) {
        if (part->number == kPieceType && part->value == kUserDefined) facts.user_defined.push_back(id);
      }
      ++id;
    } else if (field->number == kNormalizerSpec) {
      while (const auto part = read_field(message)) {
        if (part->number == kAddDummyPrefix) facts.add_dummy_prefix = part->value != 0;
      }
    }
  }
  return facts;
}

std::string with_dummy_prefix(std::string model, bool add_dummy_prefix) {
  // Field 3 (normalizer_spec) of two bytes: its field 3 (add_dummy_prefix) as a number.
  model += "\x1A\x02\x18";
  model += add_dummy_prefix ? '\x01' : '\0';
  return model;
}

}  // namespace finetune
