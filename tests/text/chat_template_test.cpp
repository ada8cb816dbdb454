#include "finetune/text/chat_template.h"

#include "dataset/fake_tokenizer.h"
#include "finetune/base/error.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

namespace finetune {
namespace {

/// Bytes are tokens, and so are these texts, with ids from 300 on.
class SpecialTokenizer final : public Tokenizer {
 public:
  SpecialTokenizer() {
    specials_.bos_id = 300;
    specials_.eos_id = 301;
    specials_.bos_token = "<s>";
    specials_.eos_token = "</s>";
    specials_.prefix_ids = {300};
  }
  Encoding encode(std::string_view text) const override {
    Encoding encoding;
    for (std::size_t at = 0; at < text.size();) {
      std::int32_t id = static_cast<unsigned char>(text[at]);
      std::size_t size = 1;
      for (const auto& [content, token] : kSpecials) {
        if (text.substr(at).starts_with(content))
          std::tie(id, size) = std::pair(token, content.size());
      }
      encoding.ids.push_back(id);
      encoding.offsets.push_back({at, at + size});
      at += size;
    }
    return encoding;
  }
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 256) text += static_cast<char>(id);
      for (const auto& [content, token] : kSpecials) {
        if (token == id && !skip_special_tokens) text += content;
      }
    }
    return text;
  }
  std::int32_t vocab_size() const override { return 400; }
  std::optional<std::int32_t> token_id(std::string_view) const override { return std::nullopt; }

 private:
  static inline const std::map<std::string, std::int32_t> kSpecials = {
      {"<s>", 300},        {"</s>", 301},    {"<|im_start|>", 302}, {"<|im_end|>", 303},
      {"<|eot_id|>", 304}, {"<|end|>", 305}, {"<end_of_turn>", 306}};
};

class ChatTemplateTest : public ::testing::Test {
 protected:
  std::unique_ptr<ChatTemplate> load(const std::string& source) {
    std::ofstream(folder_.path() / "chat_template.jinja", std::ios::binary) << source;
    return load_chat_template(folder_.path(), "auto", tokenizer_);
  }
  std::unique_ptr<ChatTemplate> builtin(const std::string& name) {
    return load_chat_template(folder_.path(), name, tokenizer_);
  }

  /// The supervised tokens as text, with a '|' where a gap is.
  std::string supervised(const ChatTemplate& chat, const std::vector<Message>& messages,
                         const TemplateInputs& inputs = {}) {
    const RenderedText rendered = chat.render(messages, inputs);
    std::string marked;
    for (const ByteSpan span : rendered.supervised) {
      if (!marked.empty()) marked += "|";
      marked += rendered.text.substr(span.begin, span.end - span.begin);
    }
    return marked;
  }
  std::string problem(const ChatTemplate& chat, const std::vector<Message>& messages,
                      const TemplateInputs& inputs = {}) {
    try {
      chat.render(messages, inputs);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::data) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  TemporaryFolder folder_;
  SpecialTokenizer tokenizer_;
  const std::vector<Message> talk_ = {{"system", "Be kind."},
                                      {"user", "Hi"},
                                      {"assistant", " Hello! "},
                                      {"user", "Bye"},
                                      {"assistant", "So long"}};
};

TEST_F(ChatTemplateTest, BuiltinTemplatesRender) {
  EXPECT_EQ(builtin("chatml")->render_prompt({{"user", "Hi"}}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(builtin("llama2")->render(talk_).text,
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST] "
            "So long </s>");
  EXPECT_EQ(builtin("vicuna")->render({{"user", "Hi"}, {"assistant", "Yo"}}).text,
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and "
            "polite answers to the user's questions. USER: Hi ASSISTANT: Yo</s>");
  EXPECT_EQ(builtin("none")->render({{"user", "ab", "c"}, {"assistant", "d"}}).text, "ab\ncd</s>");
  EXPECT_EQ(builtin("alpaca")->name(), "alpaca");
  EXPECT_EQ(load_chat_template(folder_.path(), "auto", tokenizer_)->name(), "alpaca");
  try {
    builtin("chatmI");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_NE(std::string(error.what()).find("did you mean chatml?"), std::string::npos)
        << error.what();
  }
}

TEST_F(ChatTemplateTest, AnswersAndWhatEndsThemAreSupervised) {
  EXPECT_EQ(supervised(*builtin("chatml"), talk_), " Hello! <|im_end|>|So long<|im_end|>");
  EXPECT_EQ(supervised(*builtin("llama2"), talk_), "Hello!|</s>|So long|</s>");
  EXPECT_EQ(supervised(*builtin("llama3"), talk_), "Hello!<|eot_id|>|So long<|eot_id|>");
  EXPECT_EQ(supervised(*builtin("phi3"), talk_), " Hello! <|end|>|So long<|end|>");
  EXPECT_EQ(supervised(*builtin("mistral"), talk_), " Hello! </s>|So long</s>");
  EXPECT_EQ(supervised(*builtin("vicuna"), talk_), " Hello! </s>|So long</s>");
  EXPECT_EQ(supervised(*builtin("alpaca"), talk_), " Hello! </s>|So long</s>");
  std::vector<Message> gemma(talk_.begin() + 1, talk_.end());
  EXPECT_EQ(supervised(*builtin("gemma"), gemma), "Hello!<end_of_turn>|So long<end_of_turn>");
  gemma[1].trained = false;
  EXPECT_EQ(supervised(*builtin("gemma"), gemma), "So long<end_of_turn>");
  EXPECT_EQ(builtin("llama3")->stop_id(), 304);
  EXPECT_EQ(builtin("alpaca")->stop_id(), 301);
  // An answer that says what the user said, or a marker, is told apart by where it came from.
  EXPECT_EQ(supervised(*builtin("chatml"), {{"user", "same"}, {"assistant", "same"}}),
            "same<|im_end|>");
  EXPECT_EQ(supervised(*builtin("alpaca"), {{"user", "a"}, {"assistant", "b</s>"}}), "b</s>");
}

TEST_F(ChatTemplateTest, ThinkingThatIsDroppedAndToolCalls) {
  const auto chat = load(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set c = m.content.split('</think>')[-1] "
      "%}"
      "{{ m.content if loop.last else c }}{% for t in m.tool_calls or [] %}<call>{{ t.name }}={{ "
      "t.arguments | tojson }}</call>{% endfor %}"
      "{% if m.role == 'tool' %} of {{ messages[loop.index0 - 1].tool_calls[0].name }}{% endif "
      "%}<|im_end|>\n{% endfor %}");
  EXPECT_EQ(supervised(*chat, {{"user", "q"},
                               {"assistant", "<think>x</think>a"},
                               {"user", "r"},
                               {"assistant", "<think>y</think>b"}}),
            "a<|im_end|>|<think>y</think>b<|im_end|>");
  Message call{"assistant", "Let me see."};
  call.fields["tool_calls"] = {{{"name", "get"}, {"arguments", {{"city", "Oslo"}}}}};
  // The result repeats the name of the call: that is not what the assistant says there.
  EXPECT_EQ(supervised(*chat, {{"user", "q"}, call, {"tool", "12"}, {"assistant", "12 degrees"}}),
            "Let me see.<call>get={\"city\": \"Oslo\"}|<|im_end|>|12 degrees<|im_end|>");
}

TEST_F(ChatTemplateTest, GenerationBlocksWin) {
  const auto chat = load(
      "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %} {{ m.content "
      "}}<|im_end|>\n{% endgeneration %}"
      "{% else %}{{ m.content }}{% endif %}{% endfor %}");
  std::vector<Message> talk = {
      {"user", "q"}, {"assistant", "a"}, {"user", "r"}, {"assistant", "b"}};
  EXPECT_EQ(supervised(*chat, talk), " a<|im_end|>\n| b<|im_end|>\n");
  talk[1].trained = false;
  EXPECT_EQ(supervised(*chat, talk), " b<|im_end|>\n");
}

TEST_F(ChatTemplateTest, SaysWhatIsWrong) {
  const auto endless = load("{% for m in messages %}{{ m.content }};{% endfor %}");
  EXPECT_NE(problem(*endless, {{"user", "q"}, {"assistant", "a"}})
                .find("with no special token that the tokenizer has: \";\" follows it"),
            std::string::npos);
  EXPECT_EQ(endless->stop_id(), std::nullopt);
  const auto forgetful = load("{{ messages[-1].content }}</s>");
  EXPECT_NE(
      problem(*forgetful, {{"user", "q"}, {"assistant", "a"}, {"user", "q"}, {"assistant", "b"}})
          .find("message 2 is an answer that the template"),
      std::string::npos);
  EXPECT_NE(problem(*builtin("alpaca"), {{"user", "a"}, {"user", "b"}})
                .find("message 2 has the role 'user', expected 'assistant'"),
            std::string::npos);
  EXPECT_NE(problem(*builtin("alpaca"), {{"user", "a"}})
                .find("ends with the role 'user', expected a message of the role 'assistant'"),
            std::string::npos);
  EXPECT_NE(problem(*builtin("alpaca"), talk_, {.tools = {{{"name", "x"}}}}).find("has no place"),
            std::string::npos);
  EXPECT_THROW(load("{% if"), Error);
}

TEST_F(ChatTemplateTest, OneBos) {
  const auto chat =
      load("{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}");
  const Encoding encoding =
      encode_rendered(tokenizer_, chat->render({{"user", "q"}, {"assistant", "a"}}));
  EXPECT_EQ(encoding.ids, (std::vector<std::int32_t>{300, 'q', 301, 'a', 301}));
  EXPECT_EQ(encode_prompt(tokenizer_, "<s>q").ids, (std::vector<std::int32_t>{300, 'q'}));
  EXPECT_EQ(encode_prompt(tokenizer_, "q").ids, (std::vector<std::int32_t>{300, 'q'}));
}

TEST_F(ChatTemplateTest, OwnTemplatesAreFound) {
  const auto write = [&](const char* name, const std::string& text) {
    std::filesystem::create_directories((folder_.path() / name).parent_path());
    std::ofstream(folder_.path() / name, std::ios::binary) << text;
  };
  const std::vector<Message> messages = {{"user", "q"}};
  const auto prompt = [&](const TemplateInputs& inputs = {}) {
    return load_chat_template(folder_.path(), "auto", tokenizer_)->render_prompt(messages, inputs);
  };
  write("chat_template.json", R"({"chat_template": "json{{ tools }}"})");
  EXPECT_EQ(prompt(), "jsonNone");
  write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<b>"}, "unk_token": "<unk>", "chat_template": [{"name": "default", "template": "list{{ bos_token }}{{ unk_token }}"},
            {"name": "tool_use", "template": "use{{ tools | length }}"}]})");
  EXPECT_EQ(prompt(), "list<b><unk>");
  EXPECT_EQ(prompt({.tools = {{{"name", "x"}}}}), "use1");
  write("chat_template.jinja", "jinja");
  EXPECT_EQ(prompt(), "jinja");
  write("additional_chat_templates/tool_use.jinja", "more tools");
  EXPECT_EQ(prompt({.tools = {{{"name", "x"}}}}), "more tools");
  write("own.jinja", "own");
  EXPECT_EQ(load_chat_template(folder_.path(), (folder_.path() / "own.jinja").string(), tokenizer_)
                ->render_prompt(messages),
            "own");
}

}  // namespace
}  // namespace finetune
