#include "finetune/train/objective.h"

#include "finetune/nn/loss.h"

namespace finetune {

LossSum sft_objective(const CausalLM& model, const Batch& batch, const ForwardContext& context) {
  const Tensor hidden = model.hidden_states(batch.input_ids, batch.starts, context);
  return {cross_entropy_sum(hidden.index_select(0, batch.target_rows), model.lm_head, batch.targets),
          batch.supervised_tokens()};
}

}  // namespace finetune
