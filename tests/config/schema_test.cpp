#include "finetune/config/schema.h"

#include "config/config_file.h"

#include <cstdlib>
#include <filesystem>

namespace finetune {
namespace {

const nlohmann::ordered_json& property(const nlohmann::ordered_json& schema,
                                       const std::string& key) {
  return schema.at("properties").at(key);
}

TEST(ConfigSchema, HasEveryKeyWithItsTypeAndRange) {
  const auto schema = config_schema();
  for (const auto& [key, value] : config_values(Config())) {
    ASSERT_TRUE(schema.at("properties").contains(key)) << key;
    EXPECT_FALSE(property(schema, key).at("description").get<std::string>().empty()) << key;
  }
  EXPECT_EQ(property(schema, "lora_rank").at("type"), "integer");
  EXPECT_EQ(property(schema, "lora_rank").at("minimum"), 1);
  EXPECT_EQ(property(schema, "lora_rank").at("default"), 16);
  EXPECT_EQ(property(schema, "lora_dropout").at("exclusiveMaximum"), 1);
  EXPECT_EQ(property(schema, "learning_rate").at("exclusiveMinimum"), 0);
  EXPECT_EQ(property(schema, "stage").at("enum").size(), 8U);
  EXPECT_EQ(property(schema, "gradient_checkpointing").at("enum"),
            nlohmann::ordered_json({"auto", true, false}));
  EXPECT_EQ(property(schema, "layers_to_transform").at("items").at("minimum"), 0);
  EXPECT_EQ(schema.at("$defs").at("dataset").at("required"), nlohmann::ordered_json({"path"}));
}

TEST(ConfigSchema, MarksAliasesAsDeprecated) {
  const auto schema = config_schema();
  for (const char* alias : {"r", "cutoff_len", "base_model", "load_in_4bit"}) {
    EXPECT_EQ(property(schema, alias).at("deprecated"), true) << alias;
  }
  EXPECT_FALSE(property(schema, "lora_rank").contains("deprecated"));
}

/// Compares a generated page with the file in docs/, or writes it when FINETUNE_UPDATE_DOCS=1.
void expect_current(const char* name, const std::string& text) {
  const std::filesystem::path path = std::filesystem::path(FINETUNE_SOURCE_DIR) / "docs" / name;
  const char* update = std::getenv("FINETUNE_UPDATE_DOCS");
  if (update != nullptr && std::string(update) == "1") {
    write_file_atomically(path, text);
    return;
  }
  ASSERT_TRUE(std::filesystem::exists(path)) << path;
  EXPECT_TRUE(read_file(path, ErrorKind::internal) == text)
      << path
      << " is not what the field list gives; write it anew with FINETUNE_UPDATE_DOCS=1 and this "
         "test";
}

TEST(ConfigDocs, PageIsCurrent) { expect_current("config.md", config_markdown()); }

TEST(ConfigDocs, SchemaIsCurrent) {
  expect_current("config.schema.json", config_schema().dump(2) + "\n");
}

TEST(ConfigDocs, PageNamesEveryKey) {
  const std::string page = config_markdown();
  for (const auto& [key, value] : config_values(Config()))
    EXPECT_CONTAINS(page, "\n| `" + key + "` | ");
}

}  // namespace
}  // namespace finetune
