#include "finetune/text/chat_template.h"

#include "finetune/base/error.h"
#include "text/tokenizer_config.h"

#include <algorithm>

namespace finetune {

namespace {

/// Builds a rendered text part by part.
class TextBuilder {
 public:
  explicit TextBuilder(const Tokenizer::Specials& specials) : specials_(specials) {}

  void add(std::string_view text) { rendered_.text += text; }

  /// The assistant's text and the EOS that ends its turn.
  void add_answer(const Message& message) {
    const std::string& eos = specials_.eos_token;
    std::string_view content = message.content;
    if (content.ends_with(eos)) content.remove_suffix(eos.size());
    const std::size_t begin = rendered_.text.size();
    add(content);
    rendered_.ends.push_back({rendered_.text.size(), rendered_.text.size() + eos.size()});
    add(eos);
    if (message.trained) rendered_.supervised.push_back({begin, rendered_.text.size()});
  }

  RenderedText finish() {
    rendered_.has_bos = !specials_.bos_token.empty() && rendered_.text.starts_with(specials_.bos_token);
    return std::move(rendered_);
  }

 private:
  const Tokenizer::Specials& specials_;
  RenderedText rendered_;
};

/// Where the messages after an optional system message begin.
std::size_t first_turn(const std::vector<Message>& messages) {
  return !messages.empty() && messages.front().role == "system" ? 1 : 0;
}

/// user, assistant, user, ... after an optional system message; `last` is the role of the last one.
void require_turns(const std::vector<Message>& messages, std::string_view template_name, std::string_view last) {
  for (std::size_t i = first_turn(messages), turn = 0; i < messages.size(); ++i, ++turn) {
    const std::string_view expected = turn % 2 == 0 ? "user" : "assistant";
    if (messages[i].role == expected) continue;
    fail(ErrorKind::data,
         "message {} has the role '{}', expected '{}': template {} needs an optional system message, then user "
         "and assistant in turn",
         i + 1, messages[i].role, expected, template_name);
  }
  if (messages.size() > first_turn(messages) && messages.back().role == last) return;
  fail(ErrorKind::data, "the conversation ends with {}, expected a message of the role '{}'",
       messages.empty() ? "nothing" : "the role '" + messages.back().role + "'", last);
}

class AlpacaTemplate final : public ChatTemplate {
 public:
  explicit AlpacaTemplate(const Tokenizer& tokenizer) : specials_(tokenizer.specials()) {}

  RenderedText render(const std::vector<Message>& messages) const override {
    require_turns(messages, "alpaca", "assistant");
    TextBuilder builder(specials_);
    build(messages, builder);
    return builder.finish();
  }

  std::string render_prompt(const std::vector<Message>& messages) const override {
    require_turns(messages, "alpaca", "user");
    TextBuilder builder(specials_);
    build(messages, builder);
    return builder.finish().text;
  }

  std::string name() const override { return "alpaca"; }

 private:
  /// Stanford's opening sentences, or the system message.
  static std::string opening(const std::vector<Message>& messages) {
    if (first_turn(messages) == 1) return messages.front().content;
    const bool has_input = std::any_of(messages.begin(), messages.end(),
                                       [](const Message& message) { return !message.input.empty(); });
    return has_input ? "Below is an instruction that describes a task, paired with an input that provides further "
                       "context. Write a response that appropriately completes the request."
                     : "Below is an instruction that describes a task. Write a response that appropriately "
                       "completes the request.";
  }

  static void build(const std::vector<Message>& messages, TextBuilder& builder) {
    builder.add(opening(messages));
    for (std::size_t i = first_turn(messages); i < messages.size(); ++i) {
      const Message& message = messages[i];
      if (message.role == "assistant") {
        builder.add_answer(message);
        continue;
      }
      builder.add("\n\n### Instruction:\n");
      builder.add(message.content);
      if (!message.input.empty()) {
        builder.add("\n\n### Input:\n");
        builder.add(message.input);
      }
      builder.add("\n\n### Response:\n");
    }
  }

  Tokenizer::Specials specials_;
};

class PlainTemplate final : public ChatTemplate {
 public:
  explicit PlainTemplate(const Tokenizer& tokenizer) : specials_(tokenizer.specials()) {}

  RenderedText render(const std::vector<Message>& messages) const override {
    TextBuilder builder(specials_);
    for (const Message& message : messages) {
      if (message.role == "assistant") {
        builder.add_answer(message);
        continue;
      }
      builder.add(message.content);
      if (!message.input.empty()) {
        if (!message.content.empty()) builder.add("\n");
        builder.add(message.input);
      }
    }
    return builder.finish();
  }

  std::string render_prompt(const std::vector<Message>& messages) const override {
    return render(messages).text;
  }

  std::string name() const override { return "none"; }

 private:
  Tokenizer::Specials specials_;
};

/// The file that holds the model's own chat template, or "".
std::string own_template(const std::filesystem::path& folder) {
  const auto jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) return jinja.string();
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    const auto config = read_json_file(folder / name);
    if (config.contains("chat_template") && !config["chat_template"].is_null()) return (folder / name).string();
  }
  return "";
}

}  // namespace

std::unique_ptr<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                                 std::string_view name, const Tokenizer& tokenizer) {
  if (name == "auto") {
    const std::string own = own_template(model_folder);
    if (!own.empty()) {
      fail(ErrorKind::config,
           "template: auto means the model's own chat template ({}), and Jinja templates are not in this version; "
           "give 'template: alpaca' or 'template: none'",
           own);
    }
  } else if (name != "alpaca" && name != "none") {
    fail(ErrorKind::config, "template: {} is not in this version; expected auto, alpaca or none", name);
  }
  if (!tokenizer.specials().eos_id || tokenizer.specials().eos_token.empty()) {
    fail(ErrorKind::model,
         "{}: the tokenizer has no end-of-sequence token, which ends every answer; name one as \"eos_token\" in "
         "tokenizer_config.json",
         model_folder.string());
  }
  if (name == "none") return std::make_unique<PlainTemplate>(tokenizer);
  return std::make_unique<AlpacaTemplate>(tokenizer);
}

}  // namespace finetune
