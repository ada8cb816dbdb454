#pragma once

#include <nlohmann/json.hpp>

namespace finetune {

/// docs/config.schema.json: a JSON Schema (2020-12) of the configuration file, for editors. Made
/// from the same field list the parser reads; aliases are in it, marked as deprecated.
nlohmann::ordered_json config_schema();

}  // namespace finetune
