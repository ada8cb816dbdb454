#pragma once

#include "finetune/model/model_config.h"
#include "finetune/nn/attention.h"
#include "finetune/nn/linear.h"

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace finetune {

/// One transformer block: norm, attention, norm, gated MLP. Names are the Hugging Face names.
struct DecoderLayer {
  Tensor input_layernorm, post_attention_layernorm;  ///< [C]
  Linear q_proj, k_proj, v_proj, o_proj;
  Linear gate_proj, up_proj, down_proj;
};

/// A decoder-only language model: the one decoder that all families share.
class CausalLM {
 public:
  ModelConfig config;
  at::ScalarType compute_dtype = at::kFloat;
  at::Device device = at::kCPU;
  Tensor embed_tokens;  ///< [V, C]
  std::vector<DecoderLayer> layers;
  Tensor norm;     ///< [C]
  Tensor lm_head;  ///< [V, C]; the same tensor as embed_tokens when tied

  /// input_ids [N] int64 of a ragged stream -> final hidden states [N, C] (after the last norm).
  Tensor hidden_states(const Tensor& input_ids, std::span<const std::int64_t> starts,
                       const ForwardContext& context) const;
  /// The same for generation: continues the sequences of `cache` and appends to it.
  Tensor hidden_states(const Tensor& input_ids, std::span<const std::int64_t> starts,
                       KvCache& cache) const;

  /// Every linear of the blocks, in order.
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;

  bool tied() const { return lm_head.is_same(embed_tokens); }

 private:
  Tensor forward(const Tensor& input_ids, std::span<const std::int64_t> starts,
                 const ForwardContext& context, KvCache* cache) const;
};

/// How a model is loaded.
struct LoadOptions {
  at::ScalarType dtype = at::kFloat;  ///< computing and holding; a file of the same type stays mapped
  at::Device device = at::kCPU;
  bool allow_extra_tensors = false;
};

/// Loads a Hugging Face folder. All missing, extra and misshapen tensors are reported in one Error(model).
CausalLM load_model(const std::filesystem::path& folder, const LoadOptions& options);

/// The floating type most weights of a folder are stored in.
at::ScalarType stored_dtype(const std::filesystem::path& folder);

}  // namespace finetune
