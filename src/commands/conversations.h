#pragma once

#include "finetune/config/config.h"
#include "finetune/text/chat_template.h"

#include <string>
#include <vector>

namespace finetune {

/// What is to be answered.
struct Conversation {
  std::vector<Message> messages;
  TemplateInputs inputs;
};

/// The rows of a file: {"prompt"}, {"messages", "tools"?, "documents"?} or {"instruction",
/// "input"?}. Throws Error(data) with "file:line" for others.
std::vector<Conversation> read_conversations(const std::string& file, const Config& config);

/// Puts the configured system message before conversations that have none.
void add_system_prompt(const Config& config, std::vector<Conversation>& conversations);

}  // namespace finetune
