#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/text/chat_template.h"

#include <nlohmann/json.hpp>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The shapes a row can have; the words of `format` in the configuration are in row_formats.cpp.
enum class RowFormat {
  instruction,        ///< {"instruction", "input"?, "output", "system"?, "history"?}
  prompt_completion,  ///< {"prompt", "completion"}: two texts, or two lists of messages
  messages,           ///< {"messages": [{"role", "content"}], "system"?}
  conversations,      ///< {"conversations": [{"from", "value"}], "system"?}
  text,               ///< {"text"}
  pair,      ///< {"prompt", "chosen", "rejected"}; the prompt also as instruction, messages ...
  labelled,  ///< {"prompt", "completion", "label"}
};

/// What a stage learns from. Rows that are prompts may have an answer, to be compared with.
enum class RowKind { answers, pairs, labelled, prompts };

/// What a row says, whatever its format.
struct RowContent {
  std::vector<Message> messages;    ///< ends with an answer; empty for plain text. The answer of a
                                    ///< prompt alone is empty
  std::vector<Message> rejected;    ///< format pair: the same up to the answers, then the worse one
  TemplateInputs inputs;            ///< tools and documents of the row
  std::optional<std::string> text;  ///< format text
  bool label = false;               ///< format labelled: the answer is desirable
  std::optional<double> margin;     ///< format pair: how much better the chosen answer is
};

/// `source`, `tags` and `format_check` of a row, which every format may have beside its own keys.
/// Throws Error(data) "found; expected" for a value of another type.
RowText read_notes(const nlohmann::ordered_json& row);

/// Reads the rows of one file. Its format is the one the configuration names, or that of the first
/// row.
class RowFormatReader {
 public:
  /// Only the formats of `kind` will do. Throws Error(config) for an unknown `format`, and for
  /// `fields` that no format has.
  RowFormatReader(const DatasetSpec& spec, RowKind kind);

  /// Throws Error(data) "found; expected", without the place, which the caller knows: a missing or
  /// empty text, a value of the wrong type, a row of another format than the rows before, a
  /// preference row.
  RowContent read(const nlohmann::ordered_json& row);

 private:
  using Json = nlohmann::ordered_json;

  bool serves(RowFormat format) const;
  std::vector<std::string> required(RowFormat format) const;
  RowFormat recognise(const Json& row) const;
  std::vector<RowFormat> candidates() const;
  std::string key(const std::string& ours) const;
  const Json* find(const Json& row, const std::string& ours) const;
  const std::string& text(const Json& row, const std::string& ours) const;
  std::string optional_text(const Json& row, const std::string& ours) const;
  [[noreturn]] void fail_missing(const Json& row, const std::string& ours) const;

  std::vector<Message> read_instruction(const Json& row) const;
  void read_history(const Json& row, std::vector<Message>& messages) const;
  std::vector<Message> read_prompt_completion(const Json& row) const;
  std::vector<Message> read_conversation(const Json& row, const std::string& ours) const;
  void read_pair(const Json& row, RowContent& content) const;
  std::optional<double> read_margin(const Json& row) const;
  bool read_label(const Json& row) const;
  std::vector<Message> read_pair_prompt(const Json& row) const;
  std::vector<Message> read_answer(const Json& row, const std::string& ours) const;
  std::vector<Message> read_messages(const Json& list, const std::string& name) const;
  Message read_message(const Json& value, const std::string& name) const;
  void read_content(const Json& content, const std::string& name, Message& message) const;

  std::optional<RowFormat> format_;
  bool named_ = false;  ///< by the configuration
  RowKind kind_;
  std::map<std::string, std::string> fields_;
};

}  // namespace finetune
