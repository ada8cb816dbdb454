#define PCRE2_CODE_UNIT_WIDTH 8

#include "finetune/scores/format_check.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/scores/text_scores.h"

#include <pcre2.h>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include <array>

namespace finetune {

struct FormatCheck::Schema {
  valijson::Schema schema;
};

struct FormatCheck::Pattern {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;

  Pattern() = default;
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  ~Pattern() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
};

namespace {

constexpr std::size_t kDeepest = 200;  ///< nesting of answers that are read at all

bool nests_too_deep(std::string_view text) {
  std::size_t depth = 0;
  for (const char c : text) {
    if ((c == '{' || c == '[') && ++depth > kDeepest) return true;
    if ((c == '}' || c == ']') && depth > 0) --depth;
  }
  return false;
}

void read_schema(const std::string& text, const std::string& where, valijson::Schema& schema) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    fail(ErrorKind::config, "{} is no JSON object; expected a JSON schema", where);
  try {
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(json), schema);
  } catch (const std::exception& error) {
    fail(ErrorKind::config, "{} is no JSON schema that can be used: {}", where, error.what());
  }
}

}  // namespace

FormatCheck::FormatCheck(const std::string& text, const std::string& where, FormatText kind)
    : where_(where) {
  const bool any = kind == FormatText::any;
  const bool in_file = kind == FormatText::schema_file || (any && text.ends_with(".json"));
  if (in_file || (any && strip(text).starts_with('{'))) {
    schema_ = std::make_unique<Schema>();
    read_schema(in_file ? read_file(text, ErrorKind::config) : text,
                in_file ? where + ": " + text : where, schema_->schema);
    return;
  }
  pattern_ = std::make_unique<Pattern>();
  int code = 0;
  PCRE2_SIZE offset = 0;
  pattern_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &offset, nullptr);
  if (pattern_->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(code, message.data(), message.size());
    fail(ErrorKind::config, "{} '{}' is no regular expression: {} at character {}; expected one{}",
         where, text, reinterpret_cast<const char*>(message.data()), offset + 1,
         any ? ", a JSON schema, or a schema's file ending in .json" : "");
  }
  pattern_->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(pattern_->limits, 1'000'000);  // an unlucky pattern ends in an error
}

FormatCheck::~FormatCheck() = default;
FormatCheck::FormatCheck(FormatCheck&&) noexcept = default;

bool FormatCheck::accepts(std::string_view answer) const {
  answer = strip(answer);
  if (schema_) {
    if (nests_too_deep(answer)) return false;
    const auto json = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) return false;
    valijson::Validator validator;
    return validator.validate(schema_->schema, valijson::adapters::NlohmannJsonAdapter(json),
                              nullptr);
  }
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const int result = pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(answer.data()),
                                 answer.size(), 0, 0, match.get(), pattern_->limits);
  if (result == PCRE2_ERROR_MATCHLIMIT) {
    fail(ErrorKind::config,
         "{} takes too many steps on an answer of {} bytes; expected a pattern without nested "
         "repetitions",
         where_, answer.size());
  }
  return result >= 0;
}

bool is_json_container(std::string_view text) {
  text = strip(text);
  if (text.empty() || (text.front() != '{' && text.front() != '[')) return false;
  return nlohmann::json::accept(text);
}

}  // namespace finetune
