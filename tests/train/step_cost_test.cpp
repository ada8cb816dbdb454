// What a training step costs, counted instead of timed: products executed and memory kept, beside
// the formulas of docs/performance.md.
#include "finetune/train/objective.h"

#include "nn/reference.h"
#include "plan/alive_bytes.h"
#include "support/temporary_folder.h"

#include "model/tiny_llama.h"

#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace finetune {
namespace {

constexpr std::int64_t kHidden = 64, kInner = 160, kQueries = 64, kKeys = 32, kVocabulary = 512,
                       kLayers = 4, kHeads = 4, kRank = 2, kTokens = 96, kSupervised = 40;

/// Multiplications and additions of the matrix products, and the number of operators called.
struct Count {
  double flops = 0;
  std::int64_t operators = 0;
} count;

std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& call) {
  ++count.operators;
  const std::string_view name = call.name();
  const bool product = name == "aten::mm" || name == "mkldnn::_linear_pointwise";
  const bool adds = name == "aten::addmm" || name == "aten::addmm_";
  if (!product && !adds) return nullptr;
  const auto inputs = call.inputs();
  const Tensor a = inputs[adds ? 1 : 0].toTensor(), b = inputs[adds ? 2 : 1].toTensor();
  const std::int64_t out = name == "mkldnn::_linear_pointwise" ? b.size(0) : b.size(1);
  count.flops += 2.0 * static_cast<double>(a.size(0) * a.size(1) * out);
  return nullptr;
}

class StepCost : public testing::Test {
 protected:
  StepCost() {
    nlohmann::json config = tiny_llama::config();
    config.update({{"hidden_size", kHidden},
                   {"intermediate_size", kInner},
                   {"num_hidden_layers", kLayers},
                   {"num_attention_heads", kHeads},
                   {"num_key_value_heads", 2},
                   {"head_dim", 16},
                   {"vocab_size", kVocabulary},
                   {"max_position_embeddings", 512}});
    tiny_llama::write(folder_.path(), config, tiny_llama::weights(config));
    model_ = load_model(folder_.path(), {});
    batch_.input_ids = at::arange(kTokens, at::kLong);
    batch_.starts = {0, 50, kTokens};
    batch_.target_rows = at::arange(kSupervised, at::kLong);
    batch_.targets = batch_.target_rows + 1;
  }

  /// LoRA on the linears whose name holds `part`; returns how many numbers it has.
  double attach(const std::string& part) {
    double size = 0;
    for (Linear* linear : model_.linears()) {
      if (linear->name.find(part) == std::string::npos) continue;
      Lora lora;
      lora.a =
          reference::leaf(reference::random({kRank, linear->weight.in_features()}, 1, at::kFloat));
      lora.b =
          reference::leaf(reference::random({linear->weight.out_features(), kRank}, 2, at::kFloat));
      size += static_cast<double>(lora.a.numel() + lora.b.numel());
      linear->lora = lora;
    }
    return size;
  }

  /// One step; what it cost is in `count` and `memory_`, what forward kept in the result.
  std::int64_t step() {
    const auto run = [&] {
      const LossSum loss = sft_objective(model_, batch_, {.training = true});
      const std::int64_t kept = memory_->alive;
      loss.sum.backward();
      return kept;
    };
    run();  // the first one also makes the gradients' memory
    count = {};
    memory_->alive = memory_->peak = 0;
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory_);
    const auto handle =
        at::addThreadLocalCallback(at::RecordFunctionCallback(note).needsInputs(true));
    const std::int64_t kept = run();
    at::removeCallback(handle);
    return kept;
  }

  static constexpr double kFrozen = static_cast<double>(
      kLayers * (kHidden * (kQueries + 2 * kKeys) + kQueries * kHidden + 3 * kHidden * kInner));

  static constexpr double kHeadFlops = 4.0 * kSupervised * kHidden * kVocabulary;

  TemporaryFolder folder_;
  CausalLM model_;
  Batch batch_;
  std::shared_ptr<AliveBytes> memory_ = std::make_shared<AliveBytes>();
};

TEST_F(StepCost, ProductsAreThoseOfTheModel) {
  const double lora = attach("proj");
  step();
  const double expected = kTokens * (4.0 * kFrozen + 6.0 * lora) + kHeadFlops;
  EXPECT_LE(count.flops, 1.05 * expected);
  EXPECT_GE(count.flops, 0.85 * expected);  // less only by what lies below the lowest adapter
}

TEST_F(StepCost, NothingIsComputedBelowTheLowestAdapter) {
  const double lora = attach("layers.3.mlp.down_proj");
  step();
  EXPECT_LE(count.flops, 1.05 * (kTokens * (2.0 * kFrozen + 6.0 * lora) + kHeadFlops));
}

TEST_F(StepCost, KeepsTheLeanSet) {
  attach("self_attn");
  const std::int64_t kept = step();
  // The block's input and middle, both norms' factors, what q, k and v read, q, k, v, attention's
  // result and its log-sum-exps, gate and up, the low-rank inner values.
  const std::int64_t floats =
      3 * kHidden + 2 + 2 * kQueries + 2 * kKeys + kHeads + 2 * kInner + 4 * kRank;
  const std::int64_t loss = 4 * (2 * kSupervised * kHidden + 3 * kTokens * kHidden);
  EXPECT_LE(kept, 4 * floats * kTokens * kLayers * 105 / 100 + loss);
}

TEST_F(StepCost, RecomputingKeepsTheInputsOfBlocks) {
  attach("proj");
  const std::int64_t plain = step();
  model_.recompute_blocks = true;
  const std::int64_t kept = step();
  // The first block keeps everything: no gradient comes to its input.
  EXPECT_LE(kept, plain / kLayers + 4 * kTokens * kHidden * (kLayers + 8));
}

TEST_F(StepCost, OperatorsAreFew) {
  attach("self_attn");
  step();
  EXPECT_LE(count.operators / kLayers, 780) << count.operators;  // 747 when this was written
}

}  // namespace
}  // namespace finetune
