#include "train/rehearse.h"

#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"

namespace finetune {

void rehearse(ExampleSource& source, const Objective& objective, const CausalLM& model,
              const Config& config, bool share_prefixes) {
  if (config.optimizer_in_backward) return;
  const std::optional<StepExamples> examples = source.largest();
  if (!examples) return;
  const Stopwatch watch;
  const std::vector<std::int64_t>& rows = examples->planned.micro_batches.front();
  const Batch batch = make_batch(examples->data, rows, share_prefixes).to(model.device);
  const ForwardContext context = {.training = true,
                                  .neftune_noise_alpha = config.neftune_noise_alpha};
  objective.loss(model, batch, context).sum.backward();
  log_info("train", "the largest batch of the run, {} tokens, has room: peak {}, {}", batch.tokens,
           format_bytes(peak_memory_bytes()), format_seconds(watch.seconds()));
}

}  // namespace finetune
