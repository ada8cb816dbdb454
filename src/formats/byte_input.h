#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace finetune {

/// The bytes of a file one after the other, with the place of the next one; gzip is recognised by
/// its first bytes and unpacked. Problems are Error(data) that begin with "name:line:".
class ByteInput {
 public:
  /// What get and peek give after the last byte.
  static constexpr int kEnd = -1;

  /// Throws Error(data) when the file is missing, not a regular file, unreadable or empty.
  ByteInput(const std::filesystem::path& path, std::string name);
  ~ByteInput();
  ByteInput(const ByteInput&) = delete;
  ByteInput& operator=(const ByteInput&) = delete;

  /// The next byte without taking it, or kEnd. Throws Error(data) for damaged gzip data.
  int peek() {
    return position_ < size_ || refill() ? static_cast<unsigned char>(buffer_[position_]) : kEnd;
  }
  /// Takes the next byte.
  int get() {
    const int byte = peek();
    if (byte == kEnd) return byte;
    ++position_;
    ++column_;
    if (byte == '\n') {
      ++line_;
      column_ = 1;
    }
    return byte;
  }
  /// Drops the UTF-8 byte order mark at the beginning of the file, if there is one.
  void skip_byte_order_mark();

  /// Place of the next byte, both counted from 1; columns in bytes.
  std::int64_t line() const { return line_; }
  std::int64_t column() const { return column_; }

 private:
  bool refill();
  bool read_packed();
  bool fill_buffer();
  void begin_member();

  std::string name_;
  int descriptor_ = -1;
  std::vector<char> buffer_;  ///< plain text
  std::size_t position_ = 0, size_ = 0;
  std::vector<char> packed_;        ///< gzip data
  std::unique_ptr<z_stream> gzip_;  ///< absent for a plain file
  bool in_member_ = false;          ///< inside a gzip member
  std::int64_t line_ = 1, column_ = 1;
};

}  // namespace finetune
