#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace finetune {

class ByteInput;

/// One row of a data file.
struct JsonRow {
  std::int64_t line = 0;     ///< line where the row begins, counted from 1, blank lines included
  std::int64_t element = 0;  ///< number in a JSON array, counted from 1; 0 in JSON Lines
  nlohmann::ordered_json value;
};

/// Reads the rows of a JSON Lines file or of a file that holds one JSON array, UTF-8 with or
/// without byte order mark, plain or gzip (told by content, not by name), one row at a time: memory
/// is bounded by the longest row.
///
/// Every problem is an Error(data) that begins with "path:line:" (and a column where there is one).
/// After a line of JSON Lines that does not parse, `next` goes on with the line after it, so that a
/// caller can collect problems; after any other problem the file is over.
class JsonRowReader {
 public:
  /// Opens the file. `name` is what messages call it; the path as the user gave it. Throws
  /// Error(data) when it is missing, a folder, a pipe or another special file, unreadable, or
  /// empty.
  JsonRowReader(const std::filesystem::path& path, std::string name, std::int64_t max_row_bytes);
  ~JsonRowReader();
  JsonRowReader(const JsonRowReader&) = delete;
  JsonRowReader& operator=(const JsonRowReader&) = delete;

  /// The next row, or nothing at the end. Throws Error(data) for text that is not JSON or not
  /// UTF-8, for NUL bytes, a row above max_row_bytes (recognised while it is read), a damaged or
  /// truncated gzip file, and a file without rows.
  std::optional<JsonRow> next();

 private:
  std::optional<JsonRow> next_line();
  std::optional<JsonRow> next_element();
  JsonRow parse(const std::string& text, std::int64_t line, std::int64_t first_column,
                std::int64_t element) const;
  bool read_element(std::string& text);
  void find_start();

  std::string name_;
  std::size_t max_row_bytes_;
  std::unique_ptr<ByteInput> input_;
  enum class Form { unknown, lines, array } form_ = Form::unknown;
  bool done_ = false;
  std::int64_t rows_ = 0;     ///< given out or refused
  std::int64_t element_ = 0;  ///< of an array
};

}  // namespace finetune
