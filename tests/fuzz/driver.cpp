// A small stand-in for libFuzzer, which needs clang: runs a target on the files of a corpus, then
// on random changes of them, without looking at which code they reach.
//
//   fuzz_NAME [--runs N] [--seconds S] [--seed N] [--dictionary FILE] CORPUS...
//
// A folder stands for its files. An input that crashes, takes more than ten seconds, or makes the
// target abort is written to a file whose path is printed; the exit code is then 1. To repeat it,
// give that file as the corpus with --runs 0.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

namespace fs = std::filesystem;

constexpr unsigned kInputSeconds = 10;
constexpr std::uint64_t kMemoryBytes = std::uint64_t{2} << 30;
constexpr std::size_t kMaxInputBytes = 64 << 10;

struct Options {
  std::uint64_t runs = ~std::uint64_t{0}, seed = 1;
  double seconds = 0;
  std::vector<std::string> corpus;
  std::string dictionary;
};

// What the signal handler needs; it may call little.
std::string current;
char failure_path[256];

void write_text(int fd, const char* text, std::size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, text, size);
    if (written <= 0) return;
    text += written;
    size -= static_cast<std::size_t>(written);
  }
}

void say(const char* text) { write_text(STDERR_FILENO, text, std::strlen(text)); }

[[noreturn]] void keep_input(int signal) {
  const int fd = open(failure_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  write_text(fd, current.data(), current.size());
  say(signal == SIGALRM || signal == SIGPROF ? "HANGS on "
      : signal == SIGSEGV                    ? "CRASHES (SIGSEGV) on "
      : signal == SIGABRT                    ? "FAILS on "
                                             : "CRASHES on ");
  say(failure_path);
  say("\n");
  _exit(1);
}

void catch_signals() {
  static char stack[64 << 10];  // of its own: the input may have used up the other
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, nullptr);
  struct sigaction action = {};
  action.sa_handler = keep_input;
  action.sa_flags = SA_ONSTACK;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGPROF})
    sigaction(signal, &action, nullptr);
}

/// Sanitizers reserve more address space than any limit.
void limit_memory() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + kMemoryBytes;
  const rlimit both = {limit, limit};
  setrlimit(RLIMIT_AS, &both);
#endif
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> read_corpus(const std::vector<std::string>& places) {
  std::vector<fs::path> files;
  for (const std::string& place : places) {
    if (!fs::is_directory(place)) {
      files.emplace_back(place);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(place))
      if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());  // the same seed makes the same inputs everywhere
  std::vector<std::string> seeds;
  for (const fs::path& file : files) seeds.push_back(read(file));
  return seeds;
}

/// The words of a dictionary as libFuzzer reads it: a line is a text in quotes, with \\, \" and
/// \xAB.
std::vector<std::string> read_dictionary(const std::string& path) {
  std::vector<std::string> words;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find('"'), last = line.rfind('"');
    if (line.starts_with("#") || first == last) continue;
    std::string word;
    for (std::size_t i = first + 1; i < last; ++i) {
      if (line[i] == '\\' && line[i + 1] == 'x') {
        word += static_cast<char>(std::stoi(line.substr(i + 2, 2), nullptr, 16));
        i += 3;
      } else {
        word += line[i] == '\\' ? line[++i] : line[i];
      }
    }
    words.push_back(word);
  }
  return words;
}

/// Changes inputs at random.
class Mutator {
 public:
  Mutator(const Options& options, std::vector<std::string> seeds)
      : random_(options.seed),
        seeds_(std::move(seeds)),
        words_(read_dictionary(options.dictionary)) {
    if (seeds_.empty()) seeds_.emplace_back();
    if (words_.empty()) words_.emplace_back("0");
  }

  std::string next() {
    std::string input = pick(seeds_);
    for (std::size_t changes = 1 + below(6); changes > 0; --changes) change(input);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  const std::string& pick(const std::vector<std::string>& from) { return from[below(from.size())]; }

  /// A piece of some input, mostly short.
  std::string piece(const std::string& of) {
    const std::size_t begin = below(of.size() + 1);
    return of.substr(begin, below(below(2) == 0 ? 16 : of.size() + 1));
  }

  void change(std::string& input) {
    static const std::vector<std::string> numbers = {"0",
                                                     "-1",
                                                     "1",
                                                     "-0.0",
                                                     "1e308",
                                                     "1e-320",
                                                     "1e999",
                                                     "2147483648",
                                                     "4294967296",
                                                     "9223372036854775807",
                                                     "-9223372036854775808",
                                                     "18446744073709551616",
                                                     "null",
                                                     "true",
                                                     "\"\"",
                                                     "[]",
                                                     "{}"};
    const std::size_t at = below(input.size() + 1);
    switch (below(10)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(below(256));
        break;
      case 2:
        input.erase(at, below(below(2) == 0 ? 8 : input.size() + 1));
        break;
      case 3:
        input.insert(at, piece(input));
        break;
      case 4:
        input.insert(at, piece(pick(seeds_)));
        break;
      case 5:
        if (below(4) == 0) input.resize(at);
        break;
      case 6:
        input.insert(at, pick(words_));
        break;
      case 7:
        input.replace(at, below(12), pick(words_));
        break;
      case 8:
        replace_value(input, at, pick(numbers));
        break;
      default:
        if (below(8) == 0) repeat(input, at);
    }
  }

  /// The number that begins after `at`, or a word, becomes another one.
  static void replace_value(std::string& input, std::size_t at, const std::string& value) {
    const std::size_t begin = input.find_first_of("-0123456789", at);
    if (begin == std::string::npos) return;
    const std::size_t end = input.find_first_not_of("+-.0123456789eE", begin);
    input.replace(begin, end == std::string::npos ? end : end - begin, value);
  }

  /// Nesting and long runs are what parsers run out of.
  void repeat(std::string& input, std::size_t at) {
    const std::string one = input.substr(at, 1 + below(6));
    std::string many;
    for (std::size_t count = std::size_t{1} << below(15); count > 0; --count) many += one;
    input.insert(at, many);
  }

  std::mt19937_64 random_;
  std::vector<std::string> seeds_, words_;
};

/// Seconds of work, whatever else the machine does meanwhile; many more of the clock, for what
/// waits.
void allow(unsigned seconds) {
  itimerval timer = {};
  timer.it_value.tv_sec = seconds;
  setitimer(ITIMER_PROF, &timer, nullptr);
  alarm(20 * seconds);
}

void run(std::string input) {
  current = std::move(input);
  // A copy of exactly its size, so that the address sanitizer sees a read beyond its end.
  const std::vector<std::uint8_t> copy(current.begin(), current.end());
  allow(kInputSeconds);
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
  allow(0);
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (word == "--runs") {
      options.runs = std::stoull(value());
    } else if (word == "--seconds") {
      options.seconds = std::stod(value());
    } else if (word == "--seed") {
      options.seed = std::stoull(value());
    } else if (word == "--dictionary") {
      options.dictionary = value();
    } else {
      options.corpus.push_back(word);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const std::string name = fs::path(argv[0]).filename().string();
  std::snprintf(failure_path, sizeof failure_path, "%s/%s-failure-%d",
                fs::temp_directory_path().c_str(), name.c_str(), static_cast<int>(getpid()));
  const std::vector<std::string> seeds = read_corpus(options.corpus);
  if (seeds.empty()) {
    std::fprintf(stderr, "%s: no input in the corpus\n", name.c_str());
    return 2;
  }
  catch_signals();
  limit_memory();
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  for (const std::string& seed : seeds) run(seed);
  Mutator mutator(options, seeds);
  std::uint64_t runs = 0;
  const bool bounded = options.seconds > 0;
  while (runs < options.runs && (!bounded || elapsed() < options.seconds)) {
    run(mutator.next());
    ++runs;
  }
  std::printf("%s: %zu seeds and %llu changed inputs in %.1f s, no failure\n", name.c_str(),
              seeds.size(), static_cast<unsigned long long>(runs), elapsed());
}
