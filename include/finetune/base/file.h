#pragma once

#include "finetune/base/error.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace finetune {

/// The whole file as bytes. Throws Error(kind) naming the path when it cannot be read.
std::string read_file(const std::filesystem::path& path, ErrorKind kind);

/// A file mapped read-only into memory; pages are shared with the page cache. Move-only.
class MappedFile {
 public:
  /// Throws Error(kind) naming the path when it is missing, not a regular file, or cannot be
  /// mapped.
  MappedFile(const std::filesystem::path& path, ErrorKind kind);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  /// Takes a part of the mapping out of this process's memory; reading it again reads the file.
  void release(std::span<const std::byte> part) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Appends bytes to the file that is being written.
using WriteBytes = std::function<void(std::span<const std::byte>)>;

/// Writes `path` so that it is either the old file or the complete new one at every instant:
/// `fill` writes into a temporary name in the same folder, which is flushed to disk and renamed.
/// Throws Error(resource) when the disk refuses; the old file then stays as it was.
void write_file_atomically(const std::filesystem::path& path,
                           const std::function<void(const WriteBytes&)>& fill);
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Creates the folder and its parents. Throws Error(resource).
void make_folder(const std::filesystem::path& path);

/// Removes a file or a folder with all that is in it, where there is one. Throws Error(resource).
void remove_path(const std::filesystem::path& path);

/// A file that grows by whole pieces: of a piece that the disk refuses nothing stays behind.
class AppendFile {
 public:
  /// Opens the file, or makes it. Throws Error(resource).
  explicit AppendFile(const std::filesystem::path& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Appends; when the file was moved or removed meanwhile, to a new one under its name. Throws
  /// Error(resource).
  void append(std::string_view piece);

 private:
  void open();

  std::filesystem::path path_;
  int fd_ = -1;
};

/// 128-bit XXH3 of the bytes as 32 hexadecimal digits. Finds damage and change, not malice.
std::string content_hash(std::span<const std::byte> bytes);
std::string content_hash(std::string_view text);
/// content_hash of a file's bytes, read through a mapping.
std::string file_hash(const std::filesystem::path& path, ErrorKind kind);

}  // namespace finetune
