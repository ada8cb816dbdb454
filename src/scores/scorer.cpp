#include "finetune/scores/scorer.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <string_view>
#include <thread>

extern char** environ;

namespace finetune {

namespace {

/// A file in memory. Whole files on both ends leave no pipe that could fill up on one side while
/// the other waits.
class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : descriptor_(memfd_create(name, MFD_CLOEXEC)) {
    if (descriptor_ < 0)
      fail(ErrorKind::resource, "scorer: no file in memory: {}", std::strerror(errno));
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int descriptor() const { return descriptor_; }

  void write_all(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t written = ::write(descriptor_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail(ErrorKind::resource, "scorer: its input: {}", std::strerror(errno));
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    lseek(descriptor_, 0, SEEK_SET);
  }

  std::string read_all() const {
    lseek(descriptor_, 0, SEEK_SET);
    std::string text;
    char buffer[1 << 16];
    for (;;) {
      const ssize_t count = ::read(descriptor_, buffer, sizeof(buffer));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return text;
      text.append(buffer, static_cast<std::size_t>(count));
    }
  }

 private:
  int descriptor_;
};

/// Begins the command in a process group of its own, so that all it starts can be ended.
pid_t start_shell(const ScorerCommand& scorer, const MemoryFile& input, const MemoryFile& output) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.descriptor(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output.descriptor(), STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  std::string shell = "sh", option = "-c", text = scorer.command;
  char* arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) fail(ErrorKind::config, "{}: /bin/sh: {}", scorer.name, std::strerror(error));
  return child;
}

/// Waits for the shell and returns its status; ends it when it takes too long or an interrupt
/// comes.
int wait_for(pid_t child, const ScorerCommand& scorer) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kShortest(200), kLongest(20'000);
  const auto end = Clock::now() + std::chrono::duration<double>(scorer.limit_seconds);
  std::chrono::microseconds pause = kShortest;
  int status = 0;
  for (;;) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const bool late = Clock::now() > end;
    if (late || interrupt_signal() != 0) {
      ::kill(-child, SIGKILL);
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      if (!late) return 0;
      fail(ErrorKind::config,
           "{} '{}': still at work after {} s, and ended; expected an answer in that time",
           scorer.name, scorer.command, scorer.limit_seconds);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongest);
  }
}

double read_number(std::string_view line, std::size_t number, const ScorerCommand& scorer) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (code != std::errc() || end != line.data() + line.size() || !std::isfinite(value)) {
    fail(ErrorKind::config, "{} '{}': its line {} is '{}'; expected a number", scorer.name,
         scorer.command, number, line.substr(0, 80));
  }
  return value;
}

}  // namespace

std::vector<double> run_scorer(const ScorerCommand& scorer, const std::vector<std::string>& lines) {
  const MemoryFile input("scorer-input"), output("scorer-output");
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  input.write_all(text);
  const int status = wait_for(start_shell(scorer, input, output), scorer);
  if (interrupt_signal() != 0) return {};
  if (status != 0) {
    fail(ErrorKind::config, "{} '{}': ended with {}; expected 0 and a number a line", scorer.name,
         scorer.command, status);
  }
  const std::string printed = output.read_all();
  std::vector<double> scores;
  for (std::string_view rest = printed; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    scores.push_back(read_number(rest.substr(0, end), scores.size() + 1, scorer));
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  if (scores.size() != lines.size()) {
    fail(ErrorKind::config, "{} '{}': printed {} numbers for {} rows; expected one a row",
         scorer.name, scorer.command, scores.size(), lines.size());
  }
  return scores;
}

}  // namespace finetune
