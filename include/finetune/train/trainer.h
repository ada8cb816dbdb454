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

/// What a finished run tells.
struct TrainReport {
  std::int64_t steps = 0, total_steps = 0;
  std::int64_t trained_parameters = 0;
  double first_eval_loss = 0, best_eval_loss = 0;  ///< 0 without evaluation data
  std::int64_t best_step = 0;
  double seconds = 0;
  std::int64_t tokens = 0;  ///< read in this process
  bool stopped_early = false;
};

/// What a run works on. All of it outlives the trainer.
struct TrainInputs {
  const Config& config;
  CausalLM& model;  ///< with its adapter attached
  std::vector<TrainableParameter> parameters;
  const Dataset& train_data;
  const Dataset* eval_data = nullptr;  ///< nullptr: none
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
  /// best state (or the last, as configured) is in the run folder afterwards. Throws
  /// Error(training) when loss or gradient is not finite: it is not applied, and the state before
  /// that step is saved as a checkpoint, unless optimizer_in_backward has changed it already.
  TrainReport run(const TrainStart& start);

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace finetune
