#include "finetune/formats/event_file.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

#include <unistd.h>
#include <array>
#include <bit>
#include <chrono>
#include <string_view>

namespace finetune {

namespace {

/// CRC-32C (Castagnoli), reflected. By hand: the packaged libraries of it are larger than this
/// file, and a hundred bytes a step need no speed.
std::uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit)
        value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
      entries[i] = value;
    }
    return entries;
  }();
  std::uint32_t crc = ~0U;
  for (const char c : bytes)
    crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xffU];
  return ~crc;
}

/// TFRecord's: a checksum of data that hold checksums would be weak.
std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  return bytes;
}

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(0x80 | (value & 0x7f));
  return bytes + static_cast<char>(value);
}

/// A protocol buffer field of kind 2: text or message.
std::string field(unsigned number, const std::string& content) {
  return varint(number << 3 | 2) + varint(content.size()) + content;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step) {
  make_folder(folder);
  // TensorBoard takes any name with "tfevents" in it, and reads them in order of name.
  file_.emplace(folder / fmt::format("events.out.tfevents.{}.{}", static_cast<std::int64_t>(now()),
                                     static_cast<std::int64_t>(getpid())));
  record(0, field(3, "brain.Event:2"));
  if (first_step > 0) record(first_step, field(7, "\x08\x01"));  // session_log: START
  flush();
}

void EventFile::scalar(std::int64_t step, const std::string& tag, double value) {
  const std::string number =
      varint(2 << 3 | 5) + little_endian(std::bit_cast<std::uint32_t>(static_cast<float>(value)));
  record(step, field(5, field(1, field(1, tag) + number)));
}

void EventFile::flush() {
  file_->append(noted_);
  noted_.clear();
}

void EventFile::record(std::int64_t step, const std::string& what) {
  const std::string event = varint(1 << 3 | 1) +
                            little_endian(std::bit_cast<std::uint64_t>(now())) + varint(2 << 3) +
                            varint(static_cast<std::uint64_t>(step)) + what;
  const std::string length = little_endian(static_cast<std::uint64_t>(event.size()));
  noted_ += length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
}

}  // namespace finetune
