#include "finetune/base/write_fault.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace finetune {

namespace {

/// Which changes of the disk go wrong, and how.
struct Fault {
  int error = 0;  ///< errno, or 0 for a kill
  long first = 0, count = 1;
};

Fault read_fault() {
  Fault fault;
  const char* text = std::getenv("FINETUNE_WRITE_FAULT");
  if (text == nullptr) return fault;
  if (std::string_view(text).starts_with("kill@")) {
    fault.first = std::strtol(text + 5, nullptr, 10);
  } else {
    std::sscanf(text, "%d@%ldx%ld", &fault.error, &fault.first, &fault.count);
  }
  return fault;
}

}  // namespace

bool write_fault() {
  static const Fault fault = read_fault();
  static std::atomic<long> changes{0};
  if (fault.first == 0) return false;
  const long change = ++changes;
  if (change < fault.first || change >= fault.first + fault.count) return false;
  if (fault.error == 0) std::raise(SIGKILL);
  errno = fault.error;
  return true;
}

}  // namespace finetune
