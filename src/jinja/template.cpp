#include "finetune/jinja/template.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "jinja/interpreter.h"
#include "jinja/parser.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace finetune::jinja {

struct Template::Parsed {
  std::string where;
  Block block;
  bool has_generation = false;
};

Template::Template() : parsed_(std::make_shared<Parsed>()) {}

Template Template::parse(std::string_view source, std::string where) {
  if (const std::size_t invalid = find_invalid_utf8(source); invalid != std::string_view::npos) {
    const auto line =
        std::count(source.begin(), source.begin() + static_cast<std::ptrdiff_t>(invalid), '\n') + 1;
    fail(ErrorKind::model, "{}:{}: a byte that is not UTF-8; a template is UTF-8 text", where,
         line);
  }
  auto parsed = std::make_shared<Parsed>();
  parsed->where = std::move(where);
  Parser parser(tokenize(source, parsed->where), parsed->where);
  parsed->block = parser.parse_template();
  parsed->has_generation = parser.has_generation();
  Template result;
  result.parsed_ = std::move(parsed);
  return result;
}

Rendered Template::render(const nlohmann::ordered_json& variables,
                          const RenderOptions& options) const {
  Interpreter interpreter(options, parsed_->where);
  return interpreter.run(parsed_->block, variables);
}

bool Template::has_generation() const { return parsed_->has_generation; }

const std::string& Template::where() const { return parsed_->where; }

}  // namespace finetune::jinja
