#pragma once

#include "finetune/config/choices.h"
#include "finetune/model/model_config.h"
#include "finetune/nn/attention.h"
#include "finetune/nn/bottleneck.h"
#include "finetune/nn/linear.h"
#include "finetune/nn/loss.h"
#include "finetune/nn/norm.h"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace finetune {

/// Projections of one attention: either q, k and v, or one fused projection. A part that a family
/// does not have is undefined, here and below.
struct AttentionBlock {
  Linear q_proj, k_proj, v_proj;
  Linear qkv_proj;
  Linear o_proj;
  Norm q_norm, k_norm;
};

/// down(act(gate) * up), with gate and up apart or fused; or down(act(up)) where there is no gate.
struct MlpBlock {
  Linear gate_proj, up_proj;
  Linear gate_up_proj;
  Linear down_proj;
};

/// A router that sends every token to some of the experts, and an expert that all tokens visit
/// (qwen2_moe).
struct MoeBlock {
  Linear router;
  std::vector<MlpBlock> experts;
  MlpBlock shared_expert;
  Linear shared_expert_gate;
};

/// One transformer block. x += attention_out_norm(attention(attention_norm(x))), then the same with
/// the MLP.
struct DecoderLayer {
  Norm attention_norm, attention_out_norm;
  AttentionBlock attention;
  Norm mlp_norm, mlp_out_norm;
  MlpBlock mlp;
  std::optional<MoeBlock> moe;  ///< in place of the MLP
  std::optional<Bottleneck> attention_adapter, output_adapter;
};

struct Pass;  // of model/blocks.h

/// A decoder-only language model: the one decoder that all families share.
class CausalLM {
 public:
  ModelConfig config;
  at::ScalarType compute_dtype = at::kFloat;
  at::Device device = at::kCPU;
  Tensor embed_tokens;     ///< [V, C]
  Tensor embed_positions;  ///< [max_position_embeddings, C], learned positions; else undefined
  std::vector<DecoderLayer> layers;
  Norm norm;
  Tensor lm_head;  ///< [V, C]; undefined when tied: the embeddings then serve, whatever training
                   ///< puts there
  Tensor lm_head_bias;  ///< [V] or undefined
  Tensor score;         ///< [1, C]: the scalar head of a reward model, on final hidden states; else
                        ///< undefined
  std::string head_name;           ///< "lm_head", as the files call it
  std::optional<Lora> embed_lora;  ///< of the embeddings: A [R, V], B [C, R], as PEFT has them
  std::optional<Lora> head_lora;   ///< of the head: A [R, C], B [V, R]
  /// The tensors that modules_to_save replaced with trained ones, by full name; undefined for the
  /// weight of a linear, which keeps its own.
  std::map<std::string, Tensor> originals;
  std::vector<std::string> modules_to_save;  ///< as the user named them
  /// In training, keep the input of each block alone and run the block again in the backward pass:
  /// memory for one block's inner values in place of all, for a third more work.
  bool recompute_blocks = false;

  /// input_ids [N] int64 of a ragged stream -> final hidden states [N, C] (after the last norm).
  Tensor hidden_states(const Tensor& input_ids, const Segments& segments,
                       const ForwardContext& context) const;
  /// The same for generation: continues the sequences of `cache` and appends to it.
  Tensor hidden_states(const Tensor& input_ids, std::span<const std::int64_t> starts,
                       KvCache& cache) const;
  /// What makes logits of the hidden states.
  Head head() const {
    return {tied() ? embed_tokens : lm_head, lm_head_bias, config.logit_scale, config.logit_softcap,
            head_lora};
  }

  /// Empty when a segment that goes on where another ends gives what the whole sequence gives;
  /// else why not.
  std::string sharing_obstacle() const;

  /// Every linear of the blocks, in order.
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;
  /// Every tensor outside the linears, with its Hugging Face name, in order: embeddings, norms,
  /// head. A tied head is not visited. `decays` is false for norms and biases, which weight decay
  /// leaves alone.
  void visit_other_tensors(
      const std::function<void(const std::string& name, Tensor& tensor, bool decays)>& visit);

  bool tied() const { return !lm_head.defined(); }
  /// "model.embed_tokens" and "lm_head", in this family's names.
  std::string embeddings_name() const { return config.names.prefix + config.names.embeddings; }
  std::int64_t parameter_count() const;
  /// Bytes that the weights of the linears take, and those they would take in the computing type.
  struct LinearBytes {
    std::uint64_t stored = 0, dense = 0;
  };
  LinearBytes linear_bytes() const;
  /// Whether any linear is quantized.
  bool quantized() const;

 private:
  Tensor forward(const Tensor& input_ids, const Segments& segments, const ForwardContext& context,
                 KvCache* cache) const;
  Tensor recompute_layers(Tensor x, const Pass& pass) const;
  Tensor embed(const Tensor& input_ids, const Segments& segments,
               std::span<const std::int64_t> first_positions, const ForwardContext& context) const;
};

/// How a model is loaded.
struct LoadOptions {
  at::ScalarType dtype =
      at::kFloat;  ///< computing and holding; a file of the same type stays mapped
  at::Device device = at::kCPU;
  bool allow_extra_tensors = false;
  Quantization quantization =
      Quantization::none;    ///< of the blocks' linears; routers, embeddings and head stay
  bool double_quant = true;  ///< with nf4: the block scales too
};

/// Loads a Hugging Face folder, quantizing one tensor after the other. Weights that the files hold
/// in bitsandbytes' NF4 stay as they are, whatever the options say. All missing, extra and
/// misshapen tensors are reported in one Error(model).
CausalLM load_model(const std::filesystem::path& folder, const LoadOptions& options);

/// The floating type most weights of a folder are stored in.
at::ScalarType stored_dtype(const std::filesystem::path& folder);

}  // namespace finetune
