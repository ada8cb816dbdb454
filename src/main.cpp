#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/config/keys.h"

#include <c10/util/Logging.h>
#include <CLI/CLI.hpp>

#include <malloc.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int kUsage = 2, kDefect = 1, kResource = 5;

/// OpenMP threads that wait spin for milliseconds; on cores shared with other work that makes
/// training ten times slower. The OpenMP library reads its limit while the program is loaded, so
/// the program starts itself once more: before the constructors of its libraries, which take most
/// of a start, and so without what they would have set up. Where this fails, it goes on as it is.
void limit_spinning(int argc, char** argv, char** environment) {
  constexpr std::string_view kLimit = "GOMP_SPINCOUNT=", kPolicy = "OMP_WAIT_POLICY=";
  // Measured: alone nearly as fast as the default, beside others far faster.
  static char limit[] = "GOMP_SPINCOUNT=3000";
  static std::array<char*, 4096> enlarged;
  if (argc < 2 || argv[1][0] == '-') return;
  std::size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    const std::string_view variable = environment[count];
    if (variable.starts_with(kLimit) || variable.starts_with(kPolicy)) return;
    if (count + 2 == enlarged.size()) return;
    enlarged[count] = environment[count];
  }
  enlarged[count] = limit;
  static char self[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (length > 0) ::execve(self, argv, enlarged.data());
}

#if defined(__GLIBC__)
[[gnu::section(".preinit_array"), gnu::used]] void (*const start_again)(int, char**,
                                                                        char**) = limit_spinning;
#endif

/// oneDNN, and LibTorch above it, keep the code of the last 1,024 shapes that they multiplied, a
/// megabyte and more each, and every batch has lengths of its own. Both read their limits at the
/// first product; one micro-batch has a few dozen shapes.
void keep_little_code() {
  setenv("LRU_CACHE_CAPACITY", "16", 0);
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256", 0);
}

/// Large tensors come and go with every step: keep their memory instead of asking the system for
/// fresh pages, which it has to clear, each time. Merging sees each tensor once; there what is
/// small and stays would break up the room of the large ones, a third of the model's size in all.
void keep_memory([[maybe_unused]] bool keep) {
#if defined(__GLIBC__)
  if (!keep) {
    mallopt(M_MMAP_THRESHOLD, 1 << 18);  // else it grows with what is freed
    return;
  }
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

int report(const char* what, int code) {
  std::fprintf(stderr, "error: %s\n", what);
  return code;
}

std::vector<std::string> verb_names(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* verb : program.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

/// A first word that is no verb; CLI11 would say that one is missing.
void check_verb(const CLI::App& program, const std::string& word) {
  const std::vector<std::string> verbs = verb_names(program);
  if (word.starts_with("-") || std::find(verbs.begin(), verbs.end(), word) != verbs.end()) return;
  const std::string near = finetune::nearest(word, verbs);
  finetune::fail(
      finetune::ErrorKind::config, "there is no verb '{}'; {}", word,
      near.empty() ? "it has: " + finetune::join(verbs, ", ") : "did you mean '" + near + "'?");
}

/// What an option that its verb does not have was meant to be; "" where CLI11 says enough.
std::string explain(const CLI::App& program) {
  const CLI::App* verb = &program;
  while (!verb->get_subcommands().empty()) verb = verb->get_subcommands().front();
  for (const std::string& word : program.remaining(/*recurse=*/true)) {
    if (!word.starts_with("-")) continue;
    const std::string name = word.substr(0, word.find('='));
    std::string key = name.substr(std::min(name.size(), name.find_first_not_of('-')));
    std::replace(key.begin(), key.end(), '-', '_');
    std::vector<std::string> options;
    bool has_settings = false;
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& known : option->get_lnames()) options.push_back("--" + known);
      has_settings |= option->get_name(/*positional=*/true) == "settings";
    }
    const std::string start = fmt::format("'{}' has no option {}; ", verb->get_name(), name);
    if (const std::string ours = finetune::config_key(key); has_settings && !ours.empty())
      return start + fmt::format("settings are written without dashes: {}=VALUE", ours);
    const std::string near = finetune::nearest(name, options);
    return start + (near.empty() ? "it has: " + finetune::join(options, ", ")
                                 : "did you mean '" + near + "'?");
  }
  return "";
}

int out_of_memory(const std::string& what) {
  return report(
      ("out of memory: " + what.substr(0, what.find('\n')) +
       "\nTry a smaller per_device_train_batch_size or max_length, gradient_checkpointing: "
       "true, or quantization: nf4; finetune plan tells what each saves.")
          .c_str(),
      kResource);
}

int parse_and_run(int argc, char** argv) {
  CLI::App program("Adapts pretrained language models to a domain.", "finetune");
  program.set_version_flag("--version", "finetune " FINETUNE_VERSION);
  program.require_subcommand(1);
  program.footer("Each verb has --help. Begin with:\n  finetune train --config configs/lora.yaml");
  finetune::add_train(program);
  finetune::add_eval(program);
  finetune::add_generate(program);
  finetune::add_inspect(program);
  finetune::add_merge(program);
  finetune::add_resize_vocab(program);
  finetune::add_plan(program);
  finetune::add_report(program);
  finetune::add_init(program);
  finetune::add_doctor(program);
  finetune::add_completion(program);
  finetune::add_man(program);
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    std::fputs(program.help().c_str(), stderr);
    return kUsage;
  }
  if (words[0] == "help") words[0] = "--help";
  check_verb(program, words[0]);
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    program.parse(std::move(words));
  } catch (const CLI::ExtrasError& error) {
    const std::string message = explain(program);
    return message.empty() ? (program.exit(error), kUsage) : report(message.c_str(), kUsage);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kUsage;
  }
  const int signal = finetune::interrupt_signal();
  return signal == 0 ? 0 : 128 + signal;
}

int run(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const finetune::Error& error) {
    return report(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return out_of_memory("an allocation failed");
  } catch (const std::filesystem::filesystem_error& error) {
    return report(error.what(), kResource);
  } catch (const std::system_error& error) {
    return report(error.what(), kResource);  // a thread that the system refused
  } catch (const std::exception& error) {
    // LibTorch's allocators have no exception type of their own on the CPU.
    const std::string what = error.what();
    if (what.find("allocate memory") != std::string::npos ||
        what.find("out of memory") != std::string::npos || what == "could not create a primitive")
      return out_of_memory(what);  // the last is oneDNN without room for its code
    return report(("a defect of finetune: " + what).c_str(), kDefect);
  }
}

}  // namespace

int main(int argc, char** argv) {
  keep_little_code();
  const std::string_view verb = argc > 1 ? argv[1] : "";
  keep_memory(verb != "merge" && verb != "resize-vocab");
  FLAGS_caffe2_use_fatal_for_enforce = false;  // a failed allocation is an error, not an abort
  const int code = run(argc, argv);
  std::cout.flush();
  std::fflush(nullptr);
  // Nothing is left to do, and LibTorch's own destructors of statics fail in some CUDA builds.
  std::_Exit(code);
}
