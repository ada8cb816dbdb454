#include "dataset/row_formats.h"

#include "dataset/row_values.h"
#include "finetune/base/error.h"
#include "finetune/base/text.h"

#include <algorithm>
#include <array>

namespace finetune {

namespace {

using Json = nlohmann::ordered_json;

/// A format's name in the configuration and its keys.
struct FormatKeys {
  RowFormat format;
  std::string_view name;
  std::vector<std::string> required;
  std::vector<std::string> optional;  ///< also keys of the messages inside
};

const std::vector<FormatKeys>& all_formats() {
  static const std::vector<FormatKeys> formats = {
      {RowFormat::instruction, "alpaca", {"instruction", "output"}, {"input", "system", "history"}},
      {RowFormat::prompt_completion,
       "prompt_completion",
       {"prompt", "completion"},
       {"role", "content", "system"}},
      {RowFormat::messages, "messages", {"messages"}, {"role", "content", "system"}},
      {RowFormat::conversations,
       "conversations",
       {"conversations"},
       {"from", "value", "role", "content", "system"}},
      {RowFormat::text, "text", {"text"}, {}},
      {RowFormat::pair,
       "preference",
       {"chosen", "rejected"},
       {"prompt", "instruction", "input", "history", "conversations", "messages", "from", "value",
        "role", "content", "system", "margin"}},
      {RowFormat::labelled,
       "unpaired_preference",
       {"prompt", "completion", "label"},
       {"role", "content", "system"}},
  };
  return formats;
}

const FormatKeys& keys_of(RowFormat format) {
  return *std::find_if(all_formats().begin(), all_formats().end(),
                       [&](const FormatKeys& keys) { return keys.format == format; });
}

constexpr std::string_view kExpectedRows =
    "expected a row like {\"instruction\", \"output\"}, {\"prompt\", \"completion\"}, "
    "{\"messages\"}, "
    "{\"conversations\"} or {\"text\"}, or 'fields:' that name its keys, such as {output: answer}";

constexpr std::string_view kExpectedPairs =
    "expected a row like {\"prompt\", \"chosen\", \"rejected\"}, or 'fields:' that name its keys, "
    "such as {chosen: better}";

constexpr std::string_view kExpectedLabels =
    "expected a row like {\"prompt\", \"completion\", \"label\"}, or 'fields:' that name its keys, "
    "such as {label: good}";

constexpr std::string_view kExpectedPrompts =
    "expected a row like {\"prompt\"}, {\"instruction\"}, {\"messages\"} or {\"conversations\"}, "
    "or "
    "'fields:' that name its keys, such as {prompt: question}";

std::string_view expected_rows(RowKind kind) {
  return kind == RowKind::pairs      ? kExpectedPairs
         : kind == RowKind::labelled ? kExpectedLabels
         : kind == RowKind::prompts  ? kExpectedPrompts
                                     : kExpectedRows;
}

RowKind kind_of(RowFormat format) {
  return format == RowFormat::pair       ? RowKind::pairs
         : format == RowFormat::labelled ? RowKind::labelled
                                         : RowKind::answers;
}

bool has_key(const std::vector<std::string>& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

/// "; here: {path: FILE, fields: {...}}" where the row has usual names of a question and an answer.
std::string likely_fields(const Json& row) {
  const auto named = [&](std::initializer_list<const char*> names) -> std::string {
    for (const char* name : names) {
      if (row.contains(name) && row.at(name).is_string()) return name;
    }
    return "";
  };
  const std::string question =
      named({"instruction", "question", "query", "prompt", "problem", "user", "human"});
  const std::string answer = named({"output", "answer", "response", "completion", "reply",
                                    "solution", "assistant", "target", "label"});
  if (question.empty() || answer.empty()) return "";
  return fmt::format("; here: datasets: [{{path: FILE, fields: {{instruction: {}, output: {}}}}}]",
                     question, answer);
}

/// What this stage would silently train wrongly on.
void refuse_preference(const Json& row) {
  if (row.contains("chosen") && row.contains("rejected")) {
    fail(ErrorKind::data,
         "a preference row (chosen, rejected); expected a row with one answer, such as "
         "{{\"prompt\", \"completion\"}}, or a preference stage, such as 'stage: dpo'");
  }
  if (row.contains("completion") && row.contains("label") && row.at("label").is_boolean()) {
    fail(ErrorKind::data,
         "a preference row (completion, label); expected a row without a label, 'stage: kto', or "
         "'format: prompt_completion' to train on every completion");
  }
}

/// A list of objects, also written as a text of JSON; null where there is none.
Json read_objects(const Json& row, const char* key) {
  const auto member = row.find(key);
  if (member == row.end() || member->is_null()) return nullptr;
  Json list = *member;
  if (list.is_string()) {
    const auto& text = member->get_ref<const std::string&>();
    if (is_blank(text)) return nullptr;
    list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  const bool fits = list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& item) {
                      return item.is_object();
                    });
  if (!fits)
    fail(ErrorKind::data, "\"{}\" is {}; expected a list of objects", key, describe(*member));
  return list.empty() ? Json(nullptr) : list;
}

}  // namespace

RowFormatReader::RowFormatReader(const DatasetSpec& spec, RowKind kind)
    : fields_(spec.fields), kind_(kind) {
  std::vector<std::string> names = {"auto"};
  for (const FormatKeys& keys : all_formats()) names.emplace_back(keys.name);
  if (spec.format != "auto") {
    const std::string_view wanted =
        spec.format == "sharegpt" ? "conversations" : std::string_view(spec.format);
    for (const FormatKeys& keys : all_formats()) {
      if (keys.name == wanted) format_ = keys.format;
    }
    if (!format_) {
      fail(ErrorKind::config, "datasets ({}): format: {} is not known; expected one of {}",
           spec.path, spec.format, join(names, ", "));
    }
    named_ = true;
    if (!serves(*format_)) {
      fail(ErrorKind::config, "datasets ({}): format: {} is not what this stage trains on; {}",
           spec.path, spec.format,
           kind == RowKind::pairs        ? "expected preference, or stage: sft"
           : kind == RowKind::labelled   ? "expected unpaired_preference, or another stage"
           : *format_ == RowFormat::pair ? "expected another, or stage: dpo"
                                         : "expected another, or stage: kto");
    }
  }
  if (!candidates().empty()) return;
  std::vector<std::string> ours;
  for (const auto& [name, theirs] : fields_) ours.push_back(name);
  fail(ErrorKind::config,
       "datasets ({}): fields: {} are not together the keys of {}; expected our keys on the left, "
       "such as "
       "{{instruction: question, output: answer}}",
       spec.path, join(ours, ", "), named_ ? "the format " + spec.format : "one row format");
}

bool RowFormatReader::serves(RowFormat format) const {
  return kind_of(format) == (kind_ == RowKind::prompts ? RowKind::answers : kind_);
}

/// The keys without which a row is not of the format.
std::vector<std::string> RowFormatReader::required(RowFormat format) const {
  std::vector<std::string> keys = keys_of(format).required;
  if (kind_ == RowKind::prompts && keys.size() == 2) keys.pop_back();  // the answer
  return keys;
}

/// The formats that have every key of `fields`.
std::vector<RowFormat> RowFormatReader::candidates() const {
  std::vector<RowFormat> formats;
  for (const FormatKeys& keys : all_formats()) {
    if (named_ ? keys.format != *format_ : !serves(keys.format)) continue;
    const bool fits = std::all_of(fields_.begin(), fields_.end(), [&](const auto& field) {
      return has_key(keys.required, field.first) || has_key(keys.optional, field.first);
    });
    if (fits) formats.push_back(keys.format);
  }
  return formats;
}

RowContent RowFormatReader::read(const Json& row) {
  if (!row.is_object())
    fail(ErrorKind::data, "the row is {}; {}", describe(row), expected_rows(kind_));
  if (!named_) {
    if (kind_ == RowKind::answers || kind_ == RowKind::prompts) refuse_preference(row);
    const RowFormat format = recognise(row);
    if (format_ && format != *format_) {
      fail(ErrorKind::data,
           "a row of the format {}, and the rows before it are {}; expected one format in a file",
           keys_of(format).name, keys_of(*format_).name);
    }
    format_ = format;
  }
  RowContent content;
  if (*format_ == RowFormat::text) {
    content.text = text(row, "text");
    return content;
  }
  content.inputs = {read_objects(row, "tools"), read_objects(row, "documents")};
  switch (*format_) {
    case RowFormat::instruction:
      content.messages = read_instruction(row);
      break;
    case RowFormat::labelled:
      content.label = read_label(row);
      content.messages = read_prompt_completion(row);
      break;
    case RowFormat::prompt_completion:
      content.messages = read_prompt_completion(row);
      break;
    case RowFormat::messages:
      content.messages = read_conversation(row, "messages");
      break;
    case RowFormat::conversations:
      content.messages = read_conversation(row, "conversations");
      break;
    case RowFormat::pair:
      read_pair(row, content);
      break;
    case RowFormat::text:
      break;
  }
  if (kind_ == RowKind::prompts && content.messages.back().role != "assistant")
    content.messages.push_back({.role = "assistant", .trained = false});
  if (content.messages.back().role != "assistant") {
    fail(ErrorKind::data,
         "the conversation ends with a message of the role '{}'; expected the assistant's answer",
         content.messages.back().role);
  }
  return content;
}

RowFormat RowFormatReader::recognise(const Json& row) const {
  std::vector<RowFormat> whole, part;
  for (const RowFormat format : candidates()) {
    const std::vector<std::string> keys = required(format);
    const auto present = std::count_if(
        keys.begin(), keys.end(), [&](const std::string& ours) { return row.contains(key(ours)); });
    if (present > 0) part.push_back(format);
    if (present == static_cast<std::ptrdiff_t>(keys.size())) whole.push_back(format);
  }
  // Instruction files often carry the rendered text along.
  if (whole.size() == 2 && whole.back() == RowFormat::text) whole.pop_back();
  if (whole.size() == 1) return whole.front();
  if (whole.size() > 1) {
    fail(ErrorKind::data,
         "the row fits the formats {} and {}; expected one, or its name as 'format:' in datasets",
         keys_of(whole[0]).name, keys_of(whole[1]).name);
  }
  // With a key missing, the reader of that format says which.
  if (format_ && std::find(part.begin(), part.end(), *format_) != part.end()) return *format_;
  if (part.size() == 1) return part.front();
  fail(ErrorKind::data, "the row has {}; {}{}", list_keys(row), expected_rows(kind_),
       kind_ == RowKind::answers ? likely_fields(row) : "");
}

std::string RowFormatReader::key(const std::string& ours) const {
  const auto mapped = fields_.find(ours);
  return mapped == fields_.end() ? ours : mapped->second;
}

/// nullptr where the key is absent or null.
const Json* RowFormatReader::find(const Json& row, const std::string& ours) const {
  const auto member = row.find(key(ours));
  return member == row.end() || member->is_null() ? nullptr : &*member;
}

void RowFormatReader::fail_missing(const Json& row, const std::string& ours) const {
  const bool null = row.contains(key(ours));
  fail(ErrorKind::data,
       "\"{}\" is {}: the row has {}; expected it, or 'fields: {{{}: KEY}}' where it has another "
       "name",
       key(ours), null ? "null" : "missing", list_keys(row), ours);
}

const std::string& RowFormatReader::text(const Json& row, const std::string& ours) const {
  const Json* value = find(row, ours);
  if (value == nullptr) fail_missing(row, ours);
  return require_text(*value, "\"" + key(ours) + "\"");
}

std::string RowFormatReader::optional_text(const Json& row, const std::string& ours) const {
  const Json* value = find(row, ours);
  if (value == nullptr) return "";
  if (!value->is_string()) {
    fail(ErrorKind::data, "\"{}\" is {}; expected a text or nothing", key(ours), describe(*value));
  }
  return value->get<std::string>();
}

std::vector<Message> RowFormatReader::read_instruction(const Json& row) const {
  std::vector<Message> messages;
  if (std::string system = optional_text(row, "system"); !system.empty()) {
    messages.push_back({.role = "system", .content = std::move(system)});
  }
  read_history(row, messages);
  messages.push_back(
      {.role = "user", .content = text(row, "instruction"), .input = optional_text(row, "input")});
  if (kind_ != RowKind::prompts || find(row, "output") != nullptr)
    messages.push_back({.role = "assistant", .content = text(row, "output")});
  return messages;
}

void RowFormatReader::read_history(const Json& row, std::vector<Message>& messages) const {
  const Json* history = find(row, "history");
  if (history == nullptr) return;
  const std::string name = key("history");
  if (!history->is_array()) {
    fail(ErrorKind::data, "\"{}\" is {}; expected a list of [question, answer]", name,
         describe(*history));
  }
  for (std::size_t i = 0; i < history->size(); ++i) {
    const Json& turn = (*history)[i];
    const std::string place = fmt::format("turn {} of \"{}\"", i + 1, name);
    if (!turn.is_array() || turn.size() != 2) {
      fail(ErrorKind::data, "{} is {}; expected [question, answer]", place,
           turn.is_array() ? fmt::format("a list of {}", turn.size()) : describe(turn));
    }
    messages.push_back(
        {.role = "user", .content = require_text(turn[0], "the question in " + place)});
    messages.push_back(
        {.role = "assistant", .content = require_text(turn[1], "the answer in " + place)});
  }
}

std::vector<Message> RowFormatReader::read_prompt_completion(const Json& row) const {
  const Json* prompt = find(row, "prompt");
  const Json* completion = find(row, "completion");
  if (prompt == nullptr) fail_missing(row, "prompt");
  if (completion == nullptr && kind_ != RowKind::prompts) fail_missing(row, "completion");
  std::vector<Message> messages;
  if (std::string system = optional_text(row, "system"); !system.empty()) {
    messages.push_back({.role = "system", .content = std::move(system)});
  }
  if (prompt->is_array()) {
    for (Message& message : read_messages(*prompt, key("prompt"))) {
      // Answers inside a prompt are given, not learned.
      message.trained = false;
      messages.push_back(std::move(message));
    }
  } else {
    messages.push_back({.role = "user", .content = text(row, "prompt")});
  }
  if (completion == nullptr) return messages;
  if (completion->is_array()) {
    for (Message& message : read_messages(*completion, key("completion")))
      messages.push_back(std::move(message));
  } else {
    messages.push_back({.role = "assistant", .content = text(row, "completion")});
  }
  return messages;
}

std::vector<Message> RowFormatReader::read_conversation(const Json& row,
                                                        const std::string& ours) const {
  const Json* list = find(row, ours);
  if (list == nullptr) fail_missing(row, ours);
  std::vector<Message> messages = read_messages(*list, key(ours));
  if (std::string system = optional_text(row, "system"); !system.empty()) {
    if (messages.front().role == "system") {
      fail(ErrorKind::data,
           "there is \"{}\" and a message of the role 'system'; expected one of them",
           key("system"));
    }
    messages.insert(messages.begin(), Message{.role = "system", .content = std::move(system)});
  }
  return messages;
}

}  // namespace finetune
