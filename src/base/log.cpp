#include "finetune/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>

namespace finetune {

namespace {

std::atomic<LogLevel> g_level{LogLevel::normal};

std::shared_ptr<spdlog::logger> make_logger() {
  const bool plain = std::getenv("NO_COLOR") != nullptr;
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(
      plain ? spdlog::color_mode::never : spdlog::color_mode::automatic);
  auto logger = std::make_shared<spdlog::logger>("finetune", std::move(sink));
  // "\r" and erase-line clear a progress bar that stands on the current line.
  logger->set_pattern(stderr_is_terminal() ? "\r\x1b[K%^%v%$" : "%v");
  logger->flush_on(spdlog::level::info);
  return logger;
}

}  // namespace

void set_log_level(LogLevel level) { g_level = level; }

LogLevel log_level() { return g_level; }

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

void log_line(LogLevel at_least, const std::string& area, const std::string& message) {
  static const std::shared_ptr<spdlog::logger> logger = make_logger();
  if (static_cast<int>(g_level.load()) < static_cast<int>(at_least)) return;
  const bool warning = at_least == LogLevel::quiet;
  logger->log(warning ? spdlog::level::warn : spdlog::level::info, "[{}] {}", area, message);
}

}  // namespace finetune
