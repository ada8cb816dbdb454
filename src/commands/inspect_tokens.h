#pragma once

namespace CLI {
class App;
}

namespace finetune {

/// Adds `tokens` to the verb `inspect`: texts to token ids and back, a line each.
void add_inspect_tokens(CLI::App& inspect);

}  // namespace finetune
