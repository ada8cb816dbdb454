#pragma once

#include "commands/run_data.h"
#include "finetune/plan/plan.h"

#include <nlohmann/json.hpp>

namespace finetune {

/// The plan as `plan --json` prints it.
nlohmann::ordered_json plan_json(const Plan& plan, const Overlong& overlong);

/// The plan as a person reads it.
std::string plan_text(const Config& config, const Plan& plan, const Overlong& overlong);

}  // namespace finetune
