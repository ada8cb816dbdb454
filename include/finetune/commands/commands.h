#pragma once

namespace CLI {
class App;
}

namespace finetune {

// Each adds one verb to the program: its options, its help, and what it does when it is chosen.
// What they do throws Error; the caller prints it and exits.

void add_train(CLI::App& program);
void add_merge(CLI::App& program);
void add_resize_vocab(CLI::App& program);
void add_eval(CLI::App& program);
void add_generate(CLI::App& program);
void add_inspect(CLI::App& program);
void add_plan(CLI::App& program);
void add_report(CLI::App& program);
void add_init(CLI::App& program);
void add_doctor(CLI::App& program);
void add_completion(CLI::App& program);
void add_man(CLI::App& program);

}  // namespace finetune
