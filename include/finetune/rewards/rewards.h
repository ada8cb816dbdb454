#pragma once

#include "finetune/config/config.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A sampled answer, and what a reward may know beside it.
struct Completion {
  std::string prompt;             ///< as the model read it
  std::string completion;         ///< without the token that ends it
  std::string reference;          ///< the row's own answer
  std::vector<std::int32_t> ids;  ///< with the token that ends it
  std::vector<std::int32_t> prompt_ids = {};
};

/// Scores of answers by a reward model, one for each; fewer when interrupt_signal() came.
using AnswerJudge = std::function<std::vector<double>(const std::vector<Completion>&)>;
/// Opens the reward adapter of `adapter:FOLDER`.
using OpenJudge = std::function<AnswerJudge(const std::string& folder)>;

/// Rewards of answers, function by function.
struct RewardTable {
  std::vector<std::vector<double>> by_function;  ///< in the order of Rewards::names()
  std::vector<double> total;                     ///< of each answer: the weighted sum
};

/// The reward functions of a configuration: what stage grpo makes likelier.
class Rewards {
 public:
  /// Reads `reward_funcs` and `reward_weights`. Throws Error(config) with every problem of them, or
  /// what `open_judge` throws.
  Rewards(const Config& config, const OpenJudge& open_judge);
  ~Rewards();
  Rewards(const Rewards&) = delete;
  Rewards& operator=(const Rewards&) = delete;

  /// What the log calls them: "answer", "regex", "regex_2".
  const std::vector<std::string>& names() const { return names_; }
  /// Why a row's own answer is none that the functions can compare with; "" where it is one.
  std::string reference_problem(const std::string& reference) const;
  /// Throws Error(config) when a user's command or pattern fails. Empty when interrupt_signal()
  /// came while a command or a reward model ran.
  std::optional<RewardTable> of(const std::vector<Completion>& answers) const;

 private:
  struct Function;
  std::vector<Function> functions_;
  std::vector<std::string> names_;
};

/// The last number in a text: digits with a sign, a decimal point, and commas between thousands.
std::optional<double> last_number(std::string_view text);

}  // namespace finetune
