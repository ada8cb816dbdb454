#pragma once

#include <string>
#include <vector>

namespace finetune {

/// Runs a user's shell command with one JSON object a line on its standard input and reads a number
/// a line from its standard output; what it writes to standard error goes to ours. Throws
/// Error(config) when it fails, or gives other than one finite number for each of `lines`.
std::vector<double> run_scorer(const std::string& command, const std::vector<std::string>& lines);

}  // namespace finetune
