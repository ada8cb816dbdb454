#include "commands/inspect_tokens.h"
#include "finetune/commands/commands.h"

#include <CLI/CLI.hpp>

namespace finetune {

void add_inspect(CLI::App& program) {
  CLI::App* verb = program.add_subcommand("inspect", "Look at what the other verbs work with");
  verb->require_subcommand(1);
  add_inspect_tokens(*verb);
}

}  // namespace finetune
