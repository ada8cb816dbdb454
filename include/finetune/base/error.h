#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

/// What kind of thing went wrong; the value is the exit code of the program.
enum class ErrorKind {
  internal = 1,  ///< a defect of ours
  config = 2,    ///< usage or configuration
  data = 3,      ///< training or evaluation data
  model = 4,     ///< model, tokenizer, adapter or checkpoint files
  resource = 5,  ///< memory, disk or device
  training = 6,  ///< training stopped itself (non-finite loss)
};

/// The one exception of this project. The message says where, what was found, what was expected
/// and what to do; only `main` prints it and exits with `exit_code()`.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

/// Throws Error(kind) with a formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Joins at most `shown` problems, one a line, and counts the rest ("... and 7 more").
/// Used wherever all problems of one kind are reported at once.
std::string join_problems(const std::vector<std::string>& problems, std::size_t shown = 10);

/// Checks an invariant of ours; a failure is a defect (exit code 1), never a user's mistake.
#define FT_CHECK(condition, ...)                                                                 \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      ::finetune::fail(::finetune::ErrorKind::internal, "{}:{}: check failed: {}: {}", __FILE__, \
                       __LINE__, #condition, ::fmt::format(__VA_ARGS__));                        \
    }                                                                                            \
  } while (false)

}  // namespace finetune
