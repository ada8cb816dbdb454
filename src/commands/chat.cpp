#include "commands/chat.h"

#include "commands/line_editor.h"
#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "finetune/base/text.h"
#include "finetune/generate/answer_text.h"
#include "finetune/model/adapters.h"

#include <csignal>
#include <cstdio>

namespace finetune {

namespace {

constexpr const char* kHelp =
    "  /reset           forget the conversation; the system message stays\n"
    "  /system [TEXT]   set the system message, or take it away, and begin anew\n"
    "  /adapter NAME    answer with that adapter from now on; /adapter base with none\n"
    "  /retry           answer the last question again, for instance with another adapter\n"
    "  /exit            leave; so does Ctrl-D\n";

volatile std::sig_atomic_t stop_asked = 0;

/// Without SA_RESTART, so that reading a line ends too.
void ask_to_stop(int) { stop_asked = 1; }

void catch_stop() {
  struct sigaction action = {};
  action.sa_handler = ask_to_stop;
  sigaction(SIGINT, &action, nullptr);
}

void say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

class Chat {
 public:
  Chat(CausalLM& model, const TextTools& text, const ChatOptions& options)
      : model_(model), text_(text), options_(options), system_(options.system_prompt) {
    if (!options.adapters.empty()) put_on(options.adapters.front().name);
  }

  void run() {
    catch_stop();
    if (editor_.at_terminal()) say("/help lists the commands, Ctrl-D leaves");
    bool asked_before = false;
    for (;;) {
      const auto line = editor_.read();
      if (!line && stop_asked != 0 && !asked_before) {
        stop_asked = 0;
        asked_before = true;
        say("\n(Ctrl-C again or Ctrl-D leaves)");
        continue;
      }
      if (!line || !take(*line)) break;
      asked_before = false;
    }
    if (editor_.at_terminal()) say("");
  }

 private:
  /// False when the person leaves.
  bool take(const std::string& line) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == line.npos) return true;
    if (line[begin] != '/') {
      messages_.push_back({"user", line});
      answer();
      return true;
    }
    const std::size_t space = line.find(' ', begin);
    const std::string command = line.substr(begin, space - begin);
    const std::size_t rest = space == line.npos ? line.npos : line.find_first_not_of(' ', space);
    return obey(command, rest == line.npos ? "" : line.substr(rest));
  }

  bool obey(const std::string& command, const std::string& rest) {
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/reset") {
      reset();
    } else if (command == "/system") {
      system_ = rest.empty() ? std::nullopt : std::optional(rest);
      reset();
    } else if (command == "/adapter") {
      put_on(rest);
    } else if (command == "/retry") {
      retry();
    } else {
      if (command != "/help") say("there is no command " + command);
      std::fputs(kHelp, stderr);
    }
    return true;
  }

  void reset() {
    messages_.clear();
    say("a new conversation" + std::string(system_ ? ", system: " + *system_ : ""));
  }

  void put_on(const std::string& name) {
    std::vector<std::string> names = {"base"};
    for (const NamedAdapter& adapter : options_.adapters) names.push_back(adapter.name);
    for (const NamedAdapter& adapter : options_.adapters) {
      if (adapter.name != name) continue;
      detach_adapters(model_);
      attach_adapter(model_, adapter.saved);
      return say("answering with " + name);
    }
    if (name == "base") {
      detach_adapters(model_);
      return say("answering with the base model");
    }
    say((name.empty() ? "" : "there is no adapter '" + name + "'; ") +
        std::string("/adapter takes one of: ") + join(names, ", "));
  }

  void retry() {
    while (!messages_.empty() && messages_.back().role != "user") messages_.pop_back();
    if (messages_.empty()) return say("there is no question yet");
    answer();
  }

  /// The answer to the conversation so far; one that cannot be given takes its question along.
  void answer() {
    try {
      messages_.push_back({"assistant", stream_answer()});
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::internal) throw;
      messages_.pop_back();
      say(std::string("error: ") + error.what() + "\n/reset begins a new conversation");
    }
  }

  std::string stream_answer() {
    std::vector<Message> messages = messages_;
    if (system_) messages.insert(messages.begin(), {"system", *system_});
    const std::string prompt = text_.chat_template->render_prompt(messages);
    AnswerText answer(*text_.tokenizer, options_.stops);
    GenerateOptions generate_options = options_.generate;
    generate_options.sampling.seed = mix_seed({options_.generate.sampling.seed, messages.size()});
    generate_options.on_token = [&](std::size_t, std::span<const std::int32_t> ids) {
      const bool stop = answer.update(ids);
      print(answer.take());
      return stop || stop_asked != 0;
    };
    stop_asked = 0;
    generate(model_, {encode_prompt(*text_.tokenizer, prompt).ids}, generate_options);
    print(answer.take_rest() + "\n");
    stop_asked = 0;
    return answer.text();
  }

  static void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  CausalLM& model_;
  const TextTools& text_;
  const ChatOptions& options_;
  LineEditor editor_;
  std::optional<std::string> system_;
  std::vector<Message> messages_;  ///< without the system message
};

}  // namespace

void run_chat(CausalLM& model, const TextTools& text, const ChatOptions& options) {
  Chat(model, text, options).run();
}

}  // namespace finetune
