#include "commands/conversations.h"

#include "finetune/base/error.h"
#include "finetune/formats/jsonl.h"

namespace finetune {

using nlohmann::ordered_json;

namespace {

std::string text_field(const JsonRow& row, const char* key, const std::string& where) {
  const auto found = row.value.find(key);
  if (found == row.value.end() || !found->is_string())
    fail(ErrorKind::data, "{}: '{}' is missing or not a text", where, key);
  return found->get<std::string>();
}

/// What is no role and no plain text goes to the template as it is.
Message message_of(const ordered_json& item, const std::string& where) {
  if (!item.is_object() || !item.contains("role") || !item.at("role").is_string()) {
    fail(ErrorKind::data, "{}: a message is no object with a 'role'", where);
  }
  Message message{item.at("role").get<std::string>(), ""};
  for (const auto& [name, value] : item.items()) {
    if (name == "content" && value.is_string()) {
      message.content = value.get<std::string>();
    } else if (name != "role") {
      message.fields[name] = value;
    }
  }
  if (!item.contains("content") && !item.contains("tool_calls"))
    fail(ErrorKind::data, "{}: 'content' is missing or not a text", where);
  return message;
}

/// {"prompt"} | {"messages", "tools"?, "documents"?} | {"instruction", "input"?}
Conversation conversation_of(const JsonRow& row, const std::string& where) {
  if (!row.value.is_object()) fail(ErrorKind::data, "{}: expected a JSON object", where);
  Conversation conversation;
  if (row.value.contains("messages")) {
    for (const ordered_json& item : row.value.at("messages"))
      conversation.messages.push_back(message_of(item, where));
    if (conversation.messages.empty()) fail(ErrorKind::data, "{}: 'messages' is empty", where);
    if (row.value.contains("tools")) conversation.inputs.tools = row.value.at("tools");
    if (row.value.contains("documents")) conversation.inputs.documents = row.value.at("documents");
    return conversation;
  }
  if (row.value.contains("prompt")) return {{{"user", text_field(row, "prompt", where)}}, {}};
  if (!row.value.contains("instruction")) {
    fail(ErrorKind::data, "{}: has neither 'prompt', 'messages' nor 'instruction'", where);
  }
  Message message{"user", text_field(row, "instruction", where)};
  if (row.value.contains("input")) message.input = text_field(row, "input", where);
  conversation.messages.push_back(std::move(message));
  return conversation;
}

}  // namespace

std::vector<Conversation> read_conversations(const std::string& file, const Config& config) {
  std::vector<Conversation> conversations;
  JsonRowReader reader(file, file, config.max_row_bytes);
  while (const auto row = reader.next())
    conversations.push_back(conversation_of(*row, fmt::format("{}:{}", file, row->line)));
  return conversations;
}

void add_system_prompt(const Config& config, std::vector<Conversation>& conversations) {
  if (!config.system_prompt) return;
  for (auto& [messages, inputs] : conversations) {
    if (messages.front().role != "system")
      messages.insert(messages.begin(), {"system", *config.system_prompt});
  }
}

}  // namespace finetune
