#include "commands/inspect.h"

#include "finetune/commands/commands.h"

namespace finetune {

void add_inspect(CLI::App& program) {
  CLI::App* inspect =
      program.add_subcommand("inspect", "Look at data, models, adapters, tokens and templates");
  inspect->require_subcommand(1);
  inspect->footer("Example:\n  finetune inspect data --config configs/lora.yaml");
  add_inspect_data(*inspect);
  add_inspect_model(*inspect);
  add_inspect_adapter(*inspect);
  add_inspect_tokens(*inspect);
  add_inspect_template(*inspect);
}

}  // namespace finetune
