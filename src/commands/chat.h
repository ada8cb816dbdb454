#pragma once

#include "commands/session.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/generate/generate.h"

#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// An adapter that `/adapter NAME` puts on.
struct NamedAdapter {
  std::string name;
  SavedAdapter saved;
};

/// What a conversation begins with.
struct ChatOptions {
  GenerateOptions generate;
  std::vector<std::string> stops;            ///< stop strings
  std::optional<std::string> system_prompt;  ///< the conversation's first system message
  std::vector<NamedAdapter> adapters;        ///< the first one is on at the beginning
};

/// Talks with a person until the input ends: reads a line, streams the answer to standard output,
/// turn by turn in the model's own template. Lines that begin with a slash are commands; `/help`
/// lists them. Ctrl-C ends an answer.
void run_chat(CausalLM& model, const TextTools& text, const ChatOptions& options);

}  // namespace finetune
