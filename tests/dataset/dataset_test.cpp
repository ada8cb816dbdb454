#include "finetune/dataset/dataset.h"

#include "dataset/fake_tokenizer.h"
#include "finetune/base/error.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

namespace finetune {
namespace {

class DatasetTest : public ::testing::Test {
 protected:
  DatasetSpec file(const std::string& content, const std::string& name = "rows.jsonl") {
    DatasetSpec spec;
    spec.path = (folder_.path() / name).string();
    std::ofstream(spec.path, std::ios::binary) << content;
    return spec;
  }

  Dataset open(const DatasetSpec& spec, const std::string& template_name = "none") {
    const auto chat = load_chat_template(folder_.path(), template_name, tokenizer_);
    return open_dataset({spec}, tokenizer_, *chat, options_);
  }
  Dataset open(const std::string& content, const std::string& template_name = "none") {
    return open(file(content), template_name);
  }

  std::string problem(const DatasetSpec& spec, ErrorKind kind = ErrorKind::data,
                      const std::string& template_name = "alpaca") {
    try {
      open(spec, template_name);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error for " << spec.path;
    return "";
  }

  void expect_problem(const std::string& row, const std::string& part) {
    const std::string found = problem(file(row));
    EXPECT_NE(found.find(part), std::string::npos) << found;
    EXPECT_EQ(found.find((folder_.path() / "rows.jsonl:1: ").string()), 0u) << found;
  }

  std::string text(const Example& example) { return tokenizer_.decode(example.input_ids, false); }

  /// The supervised tokens as text, with a '|' where a gap is.
  std::string supervised(const Example& example) {
    std::string marked;
    for (std::size_t t = 0; t < example.input_ids.size(); ++t) {
      if (example.supervised[t] == 0) continue;
      if (!marked.empty() && example.supervised[t - 1] == 0) marked += "|";
      marked += tokenizer_.decode(std::span(&example.input_ids[t], 1), false);
    }
    return marked;
  }

  TemporaryFolder folder_;
  FakeTokenizer tokenizer_;
  DatasetOptions options_;
};

constexpr const char* kAlpacaRow =
    "{\"id\": 7, \"instruction\": \"Add.\", \"input\": \"1 2\", \"output\": \"3\"}\n";

TEST_F(DatasetTest, PromptAndCompletionAreJoinedByNothing) {
  const Dataset dataset = open("\n{\"prompt\": \"Q: a\", \"completion\": \" b\"}\n");
  ASSERT_EQ(dataset.examples.size(), 1u);
  const Example& example = dataset.examples[0];
  EXPECT_EQ(text(example), "<s>Q: a b</s>");
  EXPECT_EQ(supervised(example), " b</s>");
  EXPECT_EQ(example.supervised_tokens, 3);
  EXPECT_EQ(dataset.where(example), dataset.files[0] + ":2");
  EXPECT_EQ(dataset.summary.rows, 1);
  EXPECT_EQ(dataset.summary.tokens, 8);
  EXPECT_EQ(dataset.summary.longest, 8);
  EXPECT_EQ(dataset.summary.supervised_tokens, 3);
}

TEST_F(DatasetTest, AlpacaRows) {
  options_.keep_texts = true;
  const Dataset dataset = open(kAlpacaRow, "alpaca");
  EXPECT_NE(text(dataset.examples[0])
                .find("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3</s>"),
            std::string::npos);
  EXPECT_EQ(supervised(dataset.examples[0]), "3</s>");
  EXPECT_TRUE(dataset.texts[0].prompt.ends_with("1 2\n\n### Response:\n"));
  EXPECT_EQ(dataset.texts[0].reference, "3");
}

TEST_F(DatasetTest, HistoryAndSystem) {
  const std::string row =
      "{\"instruction\": \"q3\", \"output\": \"a3\", \"input\": null, \"system\": \"S.\", "
      "\"history\": [[\"q1\", \"a1\"], [\"q2\", \"a2\"]]}";
  const Dataset dataset = open(row);
  EXPECT_EQ(text(dataset.examples[0]), "<s>S.q1a1</s>q2a2</s>q3a3</s>");
  EXPECT_EQ(supervised(dataset.examples[0]), "a1</s>|a2</s>|a3</s>");
}

TEST_F(DatasetTest, MessageLists) {
  const std::string expected = "<s>Suv</s>x</s>";
  const std::string messages =
      "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"u\"}, "
      "{\"role\": \"assistant\", \"content\": \"v\", \"weight\": 0}, {\"role\": \"assistant\", "
      "\"content\": \"x\"}]";
  const Dataset dataset = open("{\"messages\": " + messages + "}");
  EXPECT_EQ(text(dataset.examples[0]), expected);
  EXPECT_EQ(supervised(dataset.examples[0]), "x</s>");

  const Dataset shared = open(
      "{\"system\": \"S\", \"conversations\": [{\"from\": \"human\", \"value\": \"u\"}, {\"from\": "
      "\"gpt\", \"value\": "
      "\"v\"}]}");
  EXPECT_EQ(text(shared.examples[0]), "<s>Suv</s>");
  EXPECT_EQ(supervised(shared.examples[0]), "v</s>");

  const Dataset lists = open("{\"prompt\": " + messages +
                             ", \"completion\": [{\"role\": \"assistant\", \"content\": "
                             "\"z\"}]}");
  EXPECT_EQ(supervised(lists.examples[0]), "z</s>");
}

TEST_F(DatasetTest, PlainText) {
  options_.keep_texts = true;
  const Dataset dataset = open("{\"text\": \"abc\"}\n{\"text\": \"<s>d</s>\"}\n");
  EXPECT_EQ(text(dataset.examples[0]), "<s>abc</s>");
  EXPECT_EQ(dataset.examples[0].supervised_tokens, 4);
  EXPECT_EQ(text(dataset.examples[1]), "<s>d</s>");
  EXPECT_EQ(dataset.texts[0].reference, "abc");
  tokenizer_ = FakeTokenizer(1, false);
  EXPECT_EQ(supervised(open("{\"text\": \"abc\"}").examples[0]), "bc</s>");
}

TEST_F(DatasetTest, ATokenWithAnyCharacterOfTheAnswerIsSupervised) {
  tokenizer_ = FakeTokenizer(2, false);
  const Dataset dataset = open("{\"prompt\": \"abcde\", \"completion\": \"fgh\"}");
  EXPECT_EQ(supervised(dataset.examples[0]), "efgh</s>");
  EXPECT_EQ(supervised(open("{\"prompt\": \"abcd\", \"completion\": \"fgh\"}").examples[0]),
            "fgh</s>");
  EXPECT_EQ(supervised(open("{\"prompt\": \"a\", \"completion\": \"bc\"}").examples[0]), "c</s>");
}

TEST_F(DatasetTest, TrainOnPromptAndSystemPrompt) {
  options_.train_on_prompt = true;
  options_.system_prompt = "S.";
  EXPECT_EQ(supervised(open("{\"prompt\": \"ab\", \"completion\": \"c\"}").examples[0]),
            "S.abc</s>");
  EXPECT_EQ(
      text(open("{\"instruction\": \"a\", \"output\": \"c\", \"system\": \"T\"}").examples[0]),
      "<s>Tac</s>");
  EXPECT_EQ(text(open("{\"text\": \"ab\"}").examples[0]), "<s>ab</s>");
}

TEST_F(DatasetTest, FieldsAreMapped) {
  DatasetSpec spec = file("{\"question\": \"q\", \"answer\": \"a\", \"text\": \"t\"}");
  spec.fields = {{"instruction", "question"}, {"output", "answer"}};
  EXPECT_EQ(text(open(spec).examples[0]), "<s>qa</s>");
  spec.fields = {{"instruction", "question"}, {"completion", "answer"}};
  EXPECT_NE(problem(spec, ErrorKind::config).find("completion, instruction"), std::string::npos);
  spec.fields = {{"instruction", "question"}, {"output", "reply"}};
  EXPECT_NE(problem(spec).find("\"reply\" is missing"), std::string::npos);
  spec.fields.clear();
  spec.format = "parquet";
  EXPECT_NE(problem(spec, ErrorKind::config).find("expected one of auto, alpaca"),
            std::string::npos);
}

TEST_F(DatasetTest, RefusesRows) {
  expect_problem("[1, 2]", "element 1: the row is the number 1; expected a row like");
  expect_problem("{\"instruction\": \"a\", \"response\": \"b\"}",
                 "\"output\" is missing: the row has the keys");
  expect_problem("{\"instruction\": \"a\", \"output\": \"\"}", "\"output\" is empty");
  expect_problem("{\"instruction\": \" \", \"output\": \"b\"}",
                 "\"instruction\" is only white space");
  expect_problem("{\"instruction\": \"a\", \"output\": null}", "\"output\" is null");
  expect_problem("{\"instruction\": \"a\", \"output\": 4}",
                 "\"output\" is the number 4; expected a text");
  expect_problem("{\"instruction\": \"a\", \"input\": [], \"output\": \"b\"}",
                 "\"input\" is an empty list");
  expect_problem("{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\"]]}",
                 "turn 1 of \"history\"");
  expect_problem("{\"a\": 1}", "the row has the keys a; expected a row like");
  expect_problem("{}", "the row has no keys");
  expect_problem("{\"messages\": [], \"text\": \"a\"}", "\"messages\" is an empty list");
  expect_problem("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
                 "ends with a message of the role 'user'");
  expect_problem("{\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}",
                 "is 'robot'; expected");
  expect_problem("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}",
                 "message 1 has the role 'assistant'");
  expect_problem("{\"messages\": [{\"role\": \"user\", \"text\": \"a\"}]}",
                 "has the keys role, text");
  expect_problem("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "a preference row");
  expect_problem("{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}", "a preference row");
  expect_problem("{\"prompt\": \"a\", \"completion\": \"b\", \"messages\": []}",
                 "fits the formats");
}

TEST_F(DatasetTest, TemplatesSeeToolsPartsAndOtherFields) {
  const std::string path = (folder_.path() / "own.jinja").string();
  std::ofstream(path) << "{{ tools | length if tools }}{% for m in messages %}{{ m.role }}:{{ "
                         "m.content if m.content is string }}"
                         "{% for p in (m.content if m.content is sequence and m.content is not "
                         "string else []) %}{{ p.text }}{% endfor %}"
                         "{% for c in m.tool_calls %}{{ c.name }}{% endfor %}{{ "
                         "m.reasoning_content }}{{ eos_token }}{% endfor %}";
  const auto row = [&](std::string json) {
    std::erase(json, '\n');
    return text(open(json, path).examples[0]);
  };
  EXPECT_EQ(
      row(R"({"tools": [{"name": "f"}], "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]},
      {"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]}, {"role": "tool", "content": ""},
      {"role": "assistant", "content": "a", "reasoning_content": "why"}]})"),
      "<s>1user:q</s>assistant:f</s>tool:</s>assistant:awhy</s>");
  EXPECT_EQ(
      row(R"({"tools": "[{\"name\": \"f\"}]", "conversations": [{"from": "human", "value": "q"}, {"from": "observation", "value": "o"},
      {"from": "gpt", "value": "a"}]})"),
      "<s>1user:q</s>tool:o</s>assistant:a</s>");
  expect_problem(
      R"({"tools": 3, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
      "\"tools\" is the number 3; expected a list of objects");
  expect_problem(
      R"({"tools": [{}], "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
      "has no place");
}

TEST_F(DatasetTest, ReportsAllProblemsOfAllFiles) {
  std::string content = kAlpacaRow;
  for (int i = 0; i < 11; ++i) content += "{\"instruction\": \"a\"}\n";
  content += "{\"prompt\": \"a\", \"completion\": \"b\"}\nnot JSON\n";
  const auto chat = load_chat_template(folder_.path(), "alpaca", tokenizer_);
  DatasetSpec missing;
  missing.path = "absent.jsonl";
  try {
    open_dataset({missing, file(content)}, tokenizer_, *chat, options_);
    FAIL();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::data);
    EXPECT_EQ(what.find("absent.jsonl: cannot be opened"), 0u) << what;
    EXPECT_NE(what.find("rows.jsonl:10: \"output\" is missing"), std::string::npos) << what;
    EXPECT_NE(what.find("and 4 more"), std::string::npos) << what;
  }
  const std::string mixed =
      problem(file(std::string(kAlpacaRow) + "{\"prompt\": \"a\", \"completion\": \"b\"}"));
  EXPECT_NE(
      mixed.find(":2: a row of the format prompt_completion, and the rows before it are alpaca"),
      std::string::npos)
      << mixed;
}

TEST_F(DatasetTest, OverLength) {
  const std::string rows =
      "{\"prompt\": \"ab\", \"completion\": \"cdef\"}\n{\"prompt\": \"a\", \"completion\": "
      "\"b\"}\n";
  options_.max_length = 5;
  EXPECT_NE(problem(file(rows), ErrorKind::data, "none")
                .find("rows.jsonl:1: it has 8 tokens; expected at most 5"),
            std::string::npos);
  options_.overlength = Overlength::truncate;
  const Dataset truncated = open(rows);
  EXPECT_EQ(text(truncated.examples[0]), "<s>abcd");
  EXPECT_EQ(truncated.examples[0].supervised_tokens, 2);
  EXPECT_EQ(truncated.summary.truncated, 1);
  options_.max_length = 3;
  EXPECT_NE(problem(file(rows), ErrorKind::data, "none").find("have no supervised one"),
            std::string::npos);
  options_.max_length = 5;
  options_.overlength = Overlength::drop;
  const Dataset dropped = open(rows);
  EXPECT_EQ(dropped.examples.size(), 1u);
  EXPECT_EQ(dropped.summary.rows, 2);
  EXPECT_EQ(dropped.summary.dropped, 1);
  options_.max_length = 2;
  EXPECT_NE(problem(file(rows), ErrorKind::data, "none").find("2 above max_length 2 dropped"),
            std::string::npos);
}

TEST_F(DatasetTest, WeightsAndSplit) {
  std::string rows;
  for (int i = 0; i < 20; ++i) rows += "{\"text\": \"row " + std::to_string(i) + "\"}\n";
  DatasetSpec spec = file(rows);
  spec.weight = 2.25;
  options_.keep_texts = true;
  const Dataset dataset = open(spec);
  ASSERT_EQ(dataset.examples.size(), 45u);
  EXPECT_EQ(dataset.texts.size(), 45u);
  EXPECT_EQ(text(dataset.examples[44]), "<s>" + dataset.texts[44].reference + "</s>");

  const auto [train, held_out] = split_dataset(dataset, 0.1, 1);
  std::set<std::int64_t> train_lines, held_lines;
  for (const Example& example : train.examples) train_lines.insert(example.origin.line);
  for (const Example& example : held_out.examples) held_lines.insert(example.origin.line);
  EXPECT_EQ(train_lines.size(), 18u);
  EXPECT_EQ(held_lines.size(), 2u);
  for (const std::int64_t line : held_lines) EXPECT_FALSE(train_lines.contains(line));
  EXPECT_EQ(train.examples.size() + held_out.examples.size(), 45u);
  EXPECT_EQ(train.summary.tokens + held_out.summary.tokens, dataset.summary.tokens);
  EXPECT_NE(train.content_hash, held_out.content_hash);
  EXPECT_EQ(
      split_dataset(open("{\"text\": \"a\"}\n{\"text\": \"b\"}"), 0.99, 1).first.examples.size(),
      1u);
  EXPECT_THROW(split_dataset(open("{\"text\": \"a\"}"), 0.5, 1), Error);
}

TEST_F(DatasetTest, ContentHashFollowsWhatShapesTheTokens) {
  const std::string hash = open(kAlpacaRow).content_hash;
  EXPECT_EQ(open(kAlpacaRow).content_hash, hash);
  EXPECT_NE(open(kAlpacaRow, "alpaca").content_hash, hash);
  EXPECT_NE(open(std::string(kAlpacaRow) + "\n").content_hash, hash);
  options_.train_on_prompt = true;
  EXPECT_NE(open(kAlpacaRow).content_hash, hash);
}

TEST(DatasetOptionsTest, ModelLimit) {
  Config config;
  EXPECT_EQ(dataset_options(config, 1024).max_length, 1024);
  EXPECT_EQ(dataset_options(config, 4096).max_length, 2048);
  EXPECT_EQ(dataset_options(config, 0).max_length, 2048);
}

}  // namespace
}  // namespace finetune
