#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/commands/commands.h"

#include <c10/util/Logging.h>
#include <CLI/CLI.hpp>

#include <malloc.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <limits>
#include <new>
#include <string>
#include <system_error>

namespace {

constexpr int kUsage = 2, kDefect = 1, kResource = 5;

/// OpenMP threads that wait spin for milliseconds; on cores shared with other work that makes
/// training ten times slower. The OpenMP library reads its limit while the program is loaded, so
/// the program starts itself once more.
void limit_spinning(int argc, char** argv) {
  const bool heavy = argc > 1 && argv[1][0] != '-';
  if (!heavy || std::getenv("OMP_WAIT_POLICY") != nullptr ||
      std::getenv("GOMP_SPINCOUNT") != nullptr)
    return;
  setenv("GOMP_SPINCOUNT", "3000",
         1);  // measured: alone nearly as fast as the default, beside others far faster
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (!error) execv(self.c_str(), argv);  // where this fails, the program goes on as it is
}

/// Large tensors come and go with every step: keep their memory instead of asking the system for
/// fresh pages, which it has to clear, each time.
void keep_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

int report(const char* what, int code) {
  std::fprintf(stderr, "error: %s\n", what);
  return code;
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
  finetune::add_plan(program);
  finetune::add_report(program);
  finetune::add_init(program);
  finetune::add_doctor(program);
  try {
    program.parse(argc, argv);
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
        what.find("out of memory") != std::string::npos)
      return out_of_memory(what);
    return report(("a defect of finetune: " + what).c_str(), kDefect);
  }
}

}  // namespace

int main(int argc, char** argv) {
  limit_spinning(argc, argv);
  keep_memory();
  FLAGS_caffe2_use_fatal_for_enforce = false;  // a failed allocation is an error, not an abort
  const int code = run(argc, argv);
  std::cout.flush();
  std::fflush(nullptr);
  // Nothing is left to do, and LibTorch's own destructors of statics fail in some CUDA builds.
  std::_Exit(code);
}
