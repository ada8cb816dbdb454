#pragma once

#include "finetune/config/config.h"
#include "finetune/train/run_dir.h"
#include "train/artifact.h"
#include "train/example_source.h"
#include "train/optimizer.h"

#include <limits>
#include <map>
#include <optional>
#include <string>

namespace finetune {

/// Where a run stands after a step; everything else follows from configuration, data and weights.
struct TrainerState {
  std::int64_t step = 0;
  double best_eval_loss = std::numeric_limits<double>::infinity();
  std::int64_t best_step = 0;  ///< 0: no evaluation yet
  std::int64_t evaluations_without_gain = 0;
  std::int64_t nonfinite_steps = 0;     ///< left out because loss or gradient was not finite
  std::int64_t nonfinite_in_a_row = 0;  ///< of these, the last ones
  bool evaluation_pending = false;      ///< due at this step, but an interrupt cut it short
};

/// What a run must have in common with the one it continues: settings and the content of the data.
struct RunIdentity {
  std::map<std::string, std::string> values;
};

/// Settings that may differ between the parts of one run are left out.
RunIdentity run_identity(const Config& config,
                         const std::map<std::string, std::string>& data_hashes);

/// Writes checkpoint-<step>: weights, optimizer state, what the source of examples keeps, and last
/// trainer_state.json with the hashes of all files and of itself.
void write_checkpoint(const RunDir& run, const TrainerState& state, const RunIdentity& identity,
                      const Artifact& artifact, const Optimizer& optimizer,
                      const ExampleSource& source);

/// Restores the newest checkpoint whose files are whole; damaged ones are told and set aside.
/// Nothing when there is none. Throws Error(config) naming every setting that has changed, unless
/// `allow_changed`.
std::optional<TrainerState> restore_checkpoint(const RunDir& run, const RunIdentity& identity,
                                               bool allow_changed, const Artifact& artifact,
                                               Optimizer& optimizer);

/// Puts weights and optimizer back to those of a checkpoint's folder. Throws Error(model).
void restore_values(const std::filesystem::path& folder, const Artifact& artifact,
                    Optimizer& optimizer);

}  // namespace finetune
