#include "finetune/train/reward_model.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/model/adapters.h"
#include "train/answer_scores.h"
#include "train/reward.h"

#include <ATen/core/grad_mode.h>

namespace finetune {

CausalLM open_reward_model(const std::filesystem::path& base, const std::filesystem::path& adapter,
                           const LoadOptions& options) {
  const SavedAdapter saved = read_adapter(adapter);  // first: a wrong path is told before the work
  if (!is_reward_adapter(saved)) {
    fail(ErrorKind::model,
         "{}: has no head that makes scores; expected an adapter that stage: reward trained",
         adapter.string());
  }
  CausalLM model = load_model(base, options);
  attach_adapter(model, saved);
  return model;
}

std::vector<double> reward_scores(const CausalLM& model,
                                  std::span<const std::vector<std::int32_t>> texts,
                                  std::int64_t texts_per_batch) {
  const at::NoGradGuard no_grad;
  Dataset data;
  for (const std::vector<std::int32_t>& ids : texts) {
    Example& example = data.examples.emplace_back();
    example.input_ids = ids;
    example.supervised.assign(ids.size(), 0);
  }
  std::vector<double> scores;
  for (std::int64_t row = 0; row < data.rows() && interrupt_signal() == 0; row += texts_per_batch) {
    const Batch batch = make_batch(data, rows_from(data, row, texts_per_batch)).to(model.device);
    const std::vector<double> some = to_vector(score_rows(model, batch, ForwardContext{}));
    scores.insert(scores.end(), some.begin(), some.end());
  }
  return scores;
}

}  // namespace finetune
