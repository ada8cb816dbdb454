#pragma once

#include "finetune/text/tokenizer.h"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// One turn of a conversation. Roles: system, user, assistant, tool.
struct Message {
  std::string role;
  std::string content;
  std::string input = {};  ///< of an instruction (role user): what it works on; "" where there is none
  bool trained = true;     ///< role assistant: false leaves this answer out of the loss ("weight": 0)
};

/// A conversation as one text, and which bytes of it the assistant wrote.
struct RenderedText {
  std::string text;
  std::vector<ByteSpan> supervised;  ///< ascending, disjoint; content and the end-of-turn text
  std::vector<ByteSpan> ends;        ///< where the template wrote the EOS token: each becomes that one token
  bool has_bos = false;              ///< the text itself begins with the BOS token: add none
};

/// Renders conversations for one tokenizer.
///
/// `alpaca`: Stanford's wording; a system message replaces the first sentences; a later turn follows the EOS of the one
/// before after an empty line, and repeats the "### Instruction:" block only. `none`: the texts joined by nothing
/// (an instruction and its input by a newline), EOS after every answer.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  /// The whole conversation for training. The end-of-turn token (EOS) is part of the text and supervised; it is not
  /// written twice where an answer ends with it already. Throws Error(data) for a conversation that the
  /// template cannot express, saying which turn.
  virtual RenderedText render(const std::vector<Message>& messages) const = 0;
  /// The conversation up to where the assistant begins to write; the last message is not the assistant's. Throws as
  /// `render`.
  virtual std::string render_prompt(const std::vector<Message>& messages) const = 0;
  /// The name as in the configuration, with `auto` resolved.
  virtual std::string name() const = 0;
};

/// `name` is a value of the configuration key `template` (auto, alpaca, none, ...). `auto` is the model's own template, or
/// alpaca for a model without one. Throws Error(config) for a template that this version does not have, naming those
/// it has, and Error(model) when the tokenizer has no EOS token to end a turn with.
std::unique_ptr<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                                 std::string_view name, const Tokenizer& tokenizer);

/// Tokenizes a rendered text once: specials in it are recognised, BOS is put before it as the tokenizer's own
/// default says unless it begins with one, and every end the template wrote is exactly one EOS token (also with
/// tokenizers that do not recognise its text there). Throws Error(data) for text that is not UTF-8.
Encoding encode_rendered(const Tokenizer& tokenizer, const RenderedText& rendered);

}  // namespace finetune
