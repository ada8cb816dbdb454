#pragma once

#include <string>
#include <vector>

namespace finetune {

/// A user's shell command that scores answers.
struct ScorerCommand {
  std::string command;
  std::string name = "scorer";  ///< what messages call it
  double limit_seconds = 600;   ///< it is ended, with all it has started, after this
};

/// Runs the command with one JSON object a line on its standard input and reads a number a line
/// from its standard output; what it writes to standard error goes to ours. Throws Error(config)
/// when it fails, takes too long, or gives other than one finite number for each of `lines`. Empty
/// when interrupt_signal() came: the command is ended then.
std::vector<double> run_scorer(const ScorerCommand& scorer, const std::vector<std::string>& lines);

}  // namespace finetune
