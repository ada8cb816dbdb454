#include "dataset/row_formats.h"
#include "dataset/row_values.h"
#include "finetune/base/error.h"

#include <algorithm>
#include <array>

namespace finetune {

namespace {

/// The role that a word of a data file means, or "".
std::string_view role_of(std::string_view word) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> words = {
      {{"system", "system"},
       {"developer", "system"},
       {"user", "user"},
       {"human", "user"},
       {"assistant", "assistant"},
       {"gpt", "assistant"},
       {"model", "assistant"},
       {"function_call", "assistant"},
       {"tool", "tool"},
       {"function", "tool"},
       {"observation", "tool"}}};
  for (const auto& [spelling, role] : words) {
    if (word == spelling) return role;
  }
  return "";
}

}  // namespace

/// What both answers follow on; answers inside it are given, not learned. Empty where the answers
/// bring it along.
std::vector<Message> RowFormatReader::read_pair_prompt(const Json& row) const {
  std::vector<Message> messages;
  const Json* prompt = find(row, "prompt");
  if (prompt != nullptr && prompt->is_array()) messages = read_messages(*prompt, key("prompt"));
  for (const char* list : {"messages", "conversations"}) {
    if (messages.empty() && find(row, list) != nullptr) messages = read_conversation(row, list);
  }
  if (messages.empty()) {
    if (std::string system = optional_text(row, "system"); !system.empty())
      messages.push_back({.role = "system", .content = std::move(system)});
    if (prompt != nullptr) {
      messages.push_back({.role = "user", .content = text(row, "prompt")});
    } else if (find(row, "instruction") != nullptr) {
      read_history(row, messages);
      messages.push_back({.role = "user",
                          .content = text(row, "instruction"),
                          .input = optional_text(row, "input")});
    }
  }
  for (Message& message : messages) message.trained = false;
  return messages;
}

/// A text, a message, or a list of messages.
std::vector<Message> RowFormatReader::read_answer(const Json& row, const std::string& ours) const {
  const Json* answer = find(row, ours);
  if (answer == nullptr) fail_missing(row, ours);
  if (answer->is_array()) return read_messages(*answer, key(ours));
  if (answer->is_object()) return {read_message(*answer, "\"" + key(ours) + "\"")};
  return {{.role = "assistant", .content = text(row, ours)}};
}

std::optional<double> RowFormatReader::read_margin(const Json& row) const {
  const Json* margin = find(row, "margin");
  if (margin == nullptr) return std::nullopt;
  if (!margin->is_number())
    fail(ErrorKind::data, "\"{}\" is {}; expected a number or nothing", key("margin"),
         describe(*margin));
  return margin->get<double>();
}

/// true or false, or as numbers 1 and 0.
bool RowFormatReader::read_label(const Json& row) const {
  const Json* label = find(row, "label");
  if (label == nullptr) fail_missing(row, "label");
  if (label->is_boolean()) return label->get<bool>();
  if (label->is_number() && (*label == 0 || *label == 1)) return *label == 1;
  fail(ErrorKind::data,
       "\"{}\" is {}; expected true (a desirable answer) or false (an undesirable one)",
       key("label"), describe(*label));
}

void RowFormatReader::read_pair(const Json& row, RowContent& content) const {
  std::vector<Message> chosen = read_answer(row, "chosen"), rejected = read_answer(row, "rejected");
  content.messages = read_pair_prompt(row);
  if (content.messages.empty()) {  // the two begin with it
    std::size_t shared = 0;
    const auto same = [](const Message& a, const Message& b) {
      return a.role == b.role && a.content == b.content && a.fields == b.fields;
    };
    while (shared + 1 < std::min(chosen.size(), rejected.size()) &&
           same(chosen[shared], rejected[shared])) {
      chosen[shared].trained = rejected[shared].trained = false;
      ++shared;
    }
    if (shared == 0) {
      fail(
          ErrorKind::data,
          "there is no prompt, and \"{}\" and \"{}\" do not begin with the same messages; expected "
          "\"prompt\" or \"conversations\" beside them",
          key("chosen"), key("rejected"));
    }
  }
  content.margin = read_margin(row);
  content.rejected = content.messages;
  for (Message& message : chosen) content.messages.push_back(std::move(message));
  for (Message& message : rejected) content.rejected.push_back(std::move(message));
  if (content.rejected.back().role != "assistant") {
    fail(ErrorKind::data,
         "\"{}\" ends with a message of the role '{}'; expected the assistant's answer",
         key("rejected"), content.rejected.back().role);
  }
}

std::vector<Message> RowFormatReader::read_messages(const Json& list,
                                                    const std::string& name) const {
  if (!list.is_array() || list.empty()) {
    fail(ErrorKind::data, "\"{}\" is {}; expected a list of messages {{\"role\", \"content\"}}",
         name, describe(list));
  }
  std::vector<Message> messages;
  for (std::size_t i = 0; i < list.size(); ++i) {
    messages.push_back(read_message(list[i], fmt::format("message {} of \"{}\"", i + 1, name)));
  }
  return messages;
}

Message RowFormatReader::read_message(const Json& value, const std::string& name) const {
  if (!value.is_object()) {
    fail(ErrorKind::data, "{} is {}; expected an object {{\"role\", \"content\"}}", name,
         describe(value));
  }
  // Both spellings are found under both names of the list.
  const bool spelled_from = value.contains(key("from"));
  const std::string role_key = key(spelled_from ? "from" : "role");
  const std::string content_key = key(spelled_from ? "value" : "content");
  const auto calls = value.find("tool_calls");
  const bool has_calls = calls != value.end() && !calls->is_null() && !calls->empty();
  if (!value.contains(role_key) || (!value.contains(content_key) && !has_calls)) {
    fail(ErrorKind::data, "{} has {}; expected \"{}\" and \"{}\"", name, list_keys(value), role_key,
         content_key);
  }
  const Json& role = value.at(role_key);
  if (!role.is_string())
    fail(ErrorKind::data, "\"{}\" of {} is {}; expected a text", role_key, name, describe(role));
  const auto& word = role.get_ref<const std::string&>();
  Message message{.role = std::string(role_of(word)), .content = {}};
  if (message.role.empty()) {
    fail(ErrorKind::data,
         "\"{}\" of {} is '{}'; expected system, user, assistant or tool (or human, gpt, "
         "observation ...)",
         role_key, name, word);
  }
  if (has_calls && !calls->is_array())
    fail(ErrorKind::data, "tool_calls of {} is {}; expected a list", name, describe(*calls));
  for (const auto& [field, member] : value.items()) {
    const bool known = field == role_key || field == content_key || field == "weight" ||
                       (field == "tool_calls" && !has_calls);
    if (!known) message.fields[field] = member;
  }
  const Json nothing;
  const auto content = value.find(content_key);
  read_content(content == value.end() ? nothing : *content,
               fmt::format("\"{}\" of {}", content_key, name), message);
  if (const auto weight = value.find("weight"); weight != value.end() && !weight->is_null()) {
    if (!weight->is_number() || (*weight != 0 && *weight != 1)) {
      fail(ErrorKind::data, "\"weight\" of {} is {}; expected 0 or 1", name, describe(*weight));
    }
    message.trained = *weight == 1;
  }
  return message;
}

/// A text; a list of parts like {"type": "text", "text"}; or nothing beside tool_calls.
void RowFormatReader::read_content(const Json& content, const std::string& name,
                                   Message& message) const {
  const bool has_calls = message.fields.is_object() && message.fields.contains("tool_calls");
  if (content.is_array() && !content.empty()) {
    message.fields["content"] = content;
    for (const Json& part : content) {
      if (part.is_string()) message.content += part.get_ref<const std::string&>();
      if (part.is_object() && part.contains("text") && part.at("text").is_string()) {
        message.content += part.at("text").get_ref<const std::string&>();
      }
    }
    return;
  }
  if (has_calls && content.is_null()) {
    message.fields["content"] = nullptr;
    return;
  }
  // An empty system message means something to some templates, and a tool may have nothing to say.
  const bool may_be_empty = message.role == "system" || message.role == "tool" || has_calls;
  message.content = may_be_empty && content.is_string() ? content.get<std::string>()
                                                        : require_text(content, name);
}

}  // namespace finetune
