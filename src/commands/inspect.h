#pragma once

#include <CLI/CLI.hpp>

namespace finetune {

// Each adds one verb to `inspect`.

void add_inspect_data(CLI::App& inspect);
void add_inspect_model(CLI::App& inspect);
void add_inspect_adapter(CLI::App& inspect);
void add_inspect_tokens(CLI::App& inspect);
void add_inspect_template(CLI::App& inspect);

}  // namespace finetune
