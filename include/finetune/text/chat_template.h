#pragma once

#include "finetune/jinja/template.h"
#include "finetune/text/tokenizer.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// One turn of a conversation. Roles: system, user, assistant, tool.
struct Message {
  std::string role;
  std::string content;
  std::string input =
      {};               ///< of an instruction (role user): what it works on; "" where there is none
  bool trained = true;  ///< role assistant: false leaves this answer out of the loss ("weight": 0)
  /// What else the template sees of it (tool_calls, reasoning_content, name ...), and `content`
  /// where that is no text; an object, or null for none.
  nlohmann::ordered_json fields = {};
};

/// What the template sees beside the messages; null where there is none.
struct TemplateInputs {
  nlohmann::ordered_json tools = {};      ///< a list of JSON schemas
  nlohmann::ordered_json documents = {};  ///< a list of objects
};

/// A text that must become exactly one token.
struct SpecialText {
  ByteSpan span;
  std::int32_t id = 0;
};

/// A conversation as one text, and which bytes of it the assistant wrote.
struct RenderedText {
  std::string text;
  std::vector<ByteSpan> supervised;  ///< ascending, disjoint; what the assistant says and the
                                     ///< tokens that end its turns
  std::vector<SpecialText>
      specials;          ///< ascending: BOS at the beginning, and what ends the answers
  bool has_bos = false;  ///< the text itself begins with the BOS token: add none
};

/// Renders conversations for one tokenizer. docs/templates.md says how the supervised bytes are
/// found.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  /// The whole conversation for training. An answer that ends with the EOS text itself does not get
  /// it twice. Throws Error(data) for a conversation that the template refuses, for an answer that
  /// it does not show, and for one that no special token ends.
  virtual RenderedText render(const std::vector<Message>& messages,
                              const TemplateInputs& inputs = {}) const = 0;
  /// The conversation up to where the assistant begins to write (add_generation_prompt). Throws as
  /// `render`.
  virtual std::string render_prompt(const std::vector<Message>& messages,
                                    const TemplateInputs& inputs = {}) const = 0;
  /// The name as in the configuration; `auto` is the model's own template, and "alpaca" where it
  /// has none.
  virtual std::string name() const = 0;
  /// The token that ends an answer, where the template shows it for a plain question and answer.
  virtual std::optional<std::int32_t> stop_id() const = 0;
  /// The same for templates that render everything alike; "" for one that cannot tell (it looks at
  /// the clock).
  virtual std::string fingerprint() const { return ""; }
};

/// `name` is a value of the configuration key `template`. `auto` is the model's own template, or
/// alpaca for a model without one; a name ending in .jinja is a file; the others come with the
/// program. Throws Error(config) for a name that there is not, and Error(model) for a template that
/// does not parse, or when a built-in one ends turns with EOS and the tokenizer has none.
std::unique_ptr<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                                 std::string_view name, const Tokenizer& tokenizer);

/// A template before it knows a tokenizer, for those who give its variables themselves.
struct RawTemplate {
  std::string name;   ///< as ChatTemplate::name
  std::string where;  ///< what messages call it
  jinja::Template chat;
  std::optional<jinja::Template>
      tool_use;  ///< for conversations with tools, where there is another one for them
  nlohmann::ordered_json variables;  ///< the special tokens that the folder's files name
  bool sees_tools = false;           ///< its text speaks of tools, of tool_calls
  bool sees_tool_calls = false;
  std::string source;  ///< the text of all its parts
};

/// `name` as for load_chat_template; an empty folder has no files. Throws as it, but for the EOS
/// token.
RawTemplate load_raw_template(const std::filesystem::path& model_folder, std::string_view name);

/// Tokenizes a rendered text once: specials in it are recognised, BOS is put before it as the
/// tokenizer's own default says unless it begins with one, and every text of `specials` is exactly
/// that token (also with tokenizers that do not recognise its text there). Throws Error(data) for
/// text that is not UTF-8.
Encoding encode_rendered(const Tokenizer& tokenizer, const RenderedText& rendered);

/// The same for a prompt that render_prompt gave.
Encoding encode_prompt(const Tokenizer& tokenizer, const std::string& prompt);

/// Seconds since 1970 that templates take for now: the environment's SOURCE_DATE_EPOCH; nothing
/// means the clock. Throws Error(config) for one that is no number.
std::optional<std::int64_t> fixed_time();

}  // namespace finetune
