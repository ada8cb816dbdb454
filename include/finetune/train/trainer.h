#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/model/adapters.h"
#include "finetune/train/run_dir.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace finetune {

class Rewards;
class Tokenizer;

/// What stage grpo writes and rewards answers with.
struct SamplingTools {
  const Tokenizer& tokenizer;
  std::vector<std::int32_t> stop_ids;  ///< end an answer
  const Rewards& rewards;
};

/// What a finished run tells.
struct TrainReport {
  std::int64_t steps = 0, total_steps = 0;
  std::int64_t trained_parameters = 0;
  double first_eval_loss = 0, best_eval_loss = 0;  ///< 0 without evaluation data
  std::int64_t best_step = 0;
  double seconds = 0;
  std::int64_t tokens = 0;  ///< read in this process
  bool stopped_early = false;
  std::int64_t nonfinite_steps = 0;  ///< left out
};

/// What a run works on. All of it outlives the trainer.
struct TrainInputs {
  const Config& config;
  CausalLM& model;  ///< with its adapter attached
  std::vector<TrainableParameter> parameters;
  const Dataset& train_data;
  const Dataset* eval_data = nullptr;  ///< nullptr: none
  /// The reference's log-probability of each example's answer, of both data sets; empty: the model
  /// as it is before the first step makes them.
  std::vector<double> reference = {}, eval_reference = {};
  const SamplingTools* sampling = nullptr;  ///< of stage grpo
  /// Called after each evaluation, with its step, while the model is in the state it judged.
  std::function<void(std::int64_t step)> on_evaluation = nullptr;
};

/// How to begin.
struct TrainStart {
  bool resume = false;
  bool allow_changed = false;
};

/// The one loop. Everything it draws at random follows from (seed, step), so a run that was killed
/// and resumed goes through the same states as one that was not.
class Trainer {
 public:
  Trainer(TrainInputs inputs, RunDir& run);
  ~Trainer();

  /// Trains to the end, or until interrupt_signal(), which is obeyed after saving a checkpoint. The
  /// best state (or the last, as configured) is in the run folder afterwards. A loss
  /// or gradient that is not finite is not applied; with on_nonfinite: stop, or after three such
  /// steps in a row, throws Error(training), and the state before that step is saved as a
  /// checkpoint, unless optimizer_in_backward has changed it already. So it is when an answer
  /// cannot be rewarded, with the Error of that. Throws Error(resource) when the disk refuses a
  /// write for disk_retry_seconds.
  TrainReport run(const TrainStart& start);

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace finetune
