#pragma once

#include "commands/run_data.h"
#include "commands/session.h"
#include "finetune/rewards/rewards.h"
#include "finetune/train/trainer.h"

#include <memory>
#include <optional>

namespace finetune {

/// What stage grpo needs to sample and reward answers; nothing for other stages.
class Online {
 public:
  /// Reads the reward functions, before the work of loading. Throws as Rewards.
  explicit Online(const Config& config);

  /// For the trainer; nullptr for other stages. Throws Error(data) for every row whose answer the
  /// reward functions cannot compare with.
  const SamplingTools* tools(const TextTools& text, const RunData& data);

 private:
  std::unique_ptr<Rewards> rewards_;
  std::optional<SamplingTools> tools_;
};

}  // namespace finetune
