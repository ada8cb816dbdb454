#include "finetune/formats/jsonl.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "formats/byte_input.h"
#include "formats/json_builder.h"

#include <algorithm>

namespace finetune {

namespace {

bool is_space(int byte) { return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'; }

bool is_blank(const std::string& text) { return std::all_of(text.begin(), text.end(), is_space); }

/// Refuses tables by their names: each of their lines would be told to be no JSON.
void refuse_table(const std::filesystem::path& path, const std::string& name) {
  for (const char* type : {".csv", ".tsv", ".parquet", ".arrow", ".xlsx"}) {
    if (path.extension() != type) continue;
    fail(ErrorKind::data,
         "{}: a {} file is not read; expected JSON Lines. With pandas:\n"
         "  python3 -c \"import sys, pandas; pandas.read_{}(sys.argv[1]).to_json(sys.argv[2], "
         "orient='records', lines=True, force_ascii=False)\" {} rows.jsonl",
         name, type,
         path.extension() == ".xlsx"    ? "excel"
         : path.extension() == ".tsv"   ? "table"
         : path.extension() == ".arrow" ? "feather"
                                        : std::string(type).substr(1),
         name);
  }
}

}  // namespace

JsonRowReader::JsonRowReader(const std::filesystem::path& path, std::string name,
                             std::int64_t max_row_bytes)
    : name_(std::move(name)), max_row_bytes_(static_cast<std::size_t>(max_row_bytes)) {
  refuse_table(path, name_);
  input_ = std::make_unique<ByteInput>(path, name_);
}

JsonRowReader::~JsonRowReader() = default;

std::optional<JsonRow> JsonRowReader::next() {
  if (done_) return std::nullopt;
  // Taken back where a problem leaves the rest of the file readable.
  done_ = true;
  if (form_ == Form::unknown) find_start();
  std::optional<JsonRow> row = form_ == Form::lines ? next_line() : next_element();
  if (!row && rows_ == 0) {
    fail(ErrorKind::data,
         "{}:1: the file holds no rows; expected JSON Lines or a JSON array of objects", name_);
  }
  return row;
}

void JsonRowReader::find_start() {
  if (input_->peek() == 0xFF || input_->peek() == 0xFE) {
    fail(ErrorKind::data,
         "{}:1: the file begins with the byte {:#04x}, as UTF-16 does; expected UTF-8", name_,
         input_->peek());
  }
  input_->skip_byte_order_mark();
  while (is_space(input_->peek())) input_->get();
  form_ = input_->peek() == '[' ? Form::array : Form::lines;
  if (form_ == Form::array) input_->get();
}

std::optional<JsonRow> JsonRowReader::next_line() {
  std::string text;
  while (input_->peek() != ByteInput::kEnd) {
    const std::int64_t line = input_->line();
    const std::int64_t column = input_->column();
    text.clear();
    for (int byte = input_->get(); byte != '\n' && byte != ByteInput::kEnd; byte = input_->get()) {
      if (text.size() == max_row_bytes_) {
        ++rows_;
        fail(ErrorKind::data,
             "{}:{}: the row is longer than {} (max_row_bytes); expected one JSON object a line",
             name_, line, format_bytes(max_row_bytes_));
      }
      text.push_back(static_cast<char>(byte));
    }
    if (is_blank(text)) continue;
    done_ = false;
    ++rows_;
    return parse(text, line, column, 0);
  }
  return std::nullopt;
}

std::optional<JsonRow> JsonRowReader::next_element() {
  while (is_space(input_->peek())) input_->get();
  const std::int64_t line = input_->line();
  const std::int64_t column = input_->column();
  if (element_ == 0 && input_->peek() == ']') {
    input_->get();
    return std::nullopt;
  }
  ++rows_;
  ++element_;
  std::string text;
  const bool last = !read_element(text);
  JsonRow row = parse(text, line, column, element_);
  if (input_->peek() == ByteInput::kEnd) {
    fail(ErrorKind::data,
         "{}:{}: the file ends inside the JSON array; expected ',' or ']' after element {}", name_,
         input_->line(), element_);
  }
  input_->get();
  if (last) {
    while (is_space(input_->peek())) input_->get();
    if (input_->peek() != ByteInput::kEnd) {
      fail(ErrorKind::data,
           "{}:{}:{}: there is more after the end of the JSON array; expected one array, or JSON "
           "Lines with one object a line",
           name_, input_->line(), input_->column());
    }
  }
  done_ = last;
  return row;
}

/// Reads up to the ',' or ']' after the element, or to the end of the file. True when a ','
/// follows.
bool JsonRowReader::read_element(std::string& text) {
  const std::int64_t line = input_->line();
  std::int64_t depth = 0;
  bool in_string = false;
  for (int byte = input_->peek(); byte != ByteInput::kEnd; byte = input_->peek()) {
    if (in_string) {
      if (byte == '"') in_string = false;
      if (byte == '\\') {
        text.push_back(static_cast<char>(input_->get()));
        if (input_->peek() == ByteInput::kEnd) break;
      }
    } else if (depth == 0 && (byte == ',' || byte == ']')) {
      return byte == ',';
    } else if (byte == '"') {
      in_string = true;
    } else if (byte == '{' || byte == '[') {
      ++depth;
    } else if (byte == '}' || byte == ']') {
      --depth;
    }
    if (text.size() >= max_row_bytes_) {
      fail(ErrorKind::data, "{}:{}: element {} is longer than {} (max_row_bytes)", name_, line,
           element_, format_bytes(max_row_bytes_));
    }
    text.push_back(static_cast<char>(input_->get()));
  }
  return false;
}

JsonRow JsonRowReader::parse(const std::string& text, std::int64_t line, std::int64_t first_column,
                             std::int64_t element) const {
  const auto refuse = [&](std::size_t offset, const std::string& what) {
    offset = std::min(offset, text.size());
    const auto at = text.begin() + static_cast<std::ptrdiff_t>(offset);
    const std::int64_t lines = std::count(text.begin(), at, '\n');
    const std::size_t begin = offset == 0 ? std::string::npos : text.rfind('\n', offset - 1);
    const auto column =
        static_cast<std::int64_t>(begin == std::string::npos ? offset : offset - begin - 1);
    fail(ErrorKind::data, "{}:{}:{}: {}{}", name_, line + lines,
         column + (lines == 0 ? first_column : 1),
         element == 0 ? "" : fmt::format("element {}: ", element), what);
  };
  if (const std::size_t nul = text.find('\0'); nul != std::string::npos) {
    refuse(nul, "a NUL byte; expected JSON in UTF-8 (the file may be damaged, or UTF-16)");
  }
  if (const std::size_t bad = find_invalid_utf8(text); bad != std::string::npos) {
    refuse(bad, fmt::format("the byte {:#04x} is not UTF-8; expected a file in UTF-8",
                            static_cast<unsigned char>(text[bad])));
  }
  JsonRow row{line, element, nullptr};
  JsonBuilder builder(row.value);
  if (!nlohmann::ordered_json::sax_parse(text, &builder))
    refuse(builder.offset(), builder.problem());
  return row;
}

}  // namespace finetune
