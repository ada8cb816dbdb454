#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace finetune {

enum class LogLevel { quiet, normal, verbose };

/// Logs go to standard error as "[area] message"; results go to standard output elsewhere.
void set_log_level(LogLevel level);
LogLevel log_level();

/// True when standard error is a terminal that may be coloured and redrawn (NO_COLOR honoured for
/// colour).
bool stderr_is_terminal();

void log_line(LogLevel at_least, const std::string& area, const std::string& message);

/// One line at normal verbosity.
template <typename... Args>
void log_info(const std::string& area, fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::normal, area, fmt::format(format, std::forward<Args>(args)...));
}

/// One line with --verbose only.
template <typename... Args>
void log_verbose(const std::string& area, fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::verbose, area, fmt::format(format, std::forward<Args>(args)...));
}

/// One line that --quiet does not hide.
template <typename... Args>
void log_warning(const std::string& area, fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::quiet, area, "warning: " + fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace finetune
