#pragma once

#include "finetune/text/tokenizer.h"

#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// One turn of a conversation. Roles: system, user, assistant, tool.
struct Message {
  std::string role;
  std::string content;
};

/// A conversation as one text, and which bytes of it the assistant wrote.
struct RenderedText {
  std::string text;
  std::vector<ByteSpan> supervised;  ///< ascending, disjoint; content and the end-of-turn text
  bool has_bos = false;              ///< the text itself begins with the BOS token: add none
};

/// Renders conversations for one tokenizer. `alpaca`: Stanford's wording. `none`: the texts joined by nothing.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  /// The whole conversation for training. The end-of-turn token (EOS) is part of the text and supervised.
  virtual RenderedText render(const std::vector<Message>& messages) const = 0;
  /// The conversation up to where the assistant begins to write.
  virtual std::string render_prompt(const std::vector<Message>& messages) const = 0;
  /// The name as in the configuration.
  virtual std::string name() const = 0;
};

/// `name` is a value of the configuration key `template` (auto, alpaca, none, ...). Throws Error(config) for a
/// template that this version does not have, naming those it has.
std::unique_ptr<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                                 std::string_view name, const Tokenizer& tokenizer);

}  // namespace finetune
