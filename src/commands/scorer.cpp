#include "commands/scorer.h"

#include "finetune/base/error.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

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

/// The exit status of the shell.
int run_shell(const std::string& command, const MemoryFile& input, const MemoryFile& output) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.descriptor(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output.descriptor(), STDOUT_FILENO);
  std::string shell = "sh", option = "-c", text = command;
  char* arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawn(&child, "/bin/sh", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) fail(ErrorKind::config, "scorer: /bin/sh: {}", std::strerror(error));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

double read_number(std::string_view line, std::size_t number, const std::string& command) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (code != std::errc() || end != line.data() + line.size() || !std::isfinite(value)) {
    fail(ErrorKind::config, "scorer '{}': its line {} is '{}'; expected a number", command, number,
         line.substr(0, 80));
  }
  return value;
}

}  // namespace

std::vector<double> run_scorer(const std::string& command, const std::vector<std::string>& lines) {
  const MemoryFile input("scorer-input"), output("scorer-output");
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  input.write_all(text);
  if (const int status = run_shell(command, input, output); status != 0) {
    fail(ErrorKind::config, "scorer '{}': ended with {}; expected 0 and a number a line", command,
         status);
  }
  const std::string printed = output.read_all();
  std::vector<double> scores;
  for (std::string_view rest = printed; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    scores.push_back(read_number(rest.substr(0, end), scores.size() + 1, command));
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  if (scores.size() != lines.size()) {
    fail(ErrorKind::config, "scorer '{}': printed {} numbers for {} rows; expected one a row",
         command, scores.size(), lines.size());
  }
  return scores;
}

}  // namespace finetune
