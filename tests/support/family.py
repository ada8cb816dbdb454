"""Random small models of every family, made by transformers; one row of the table a family or switch."""

import toy
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 256}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LLAMA = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
NEOX = ["query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"]
PHI = ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]
GPT2 = ["c_attn", "c_proj", "c_fc"]
GPT2_SIZES = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 400}
MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def longrope(pairs):
    return {"rope_type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
            "long_factor": [2.0 + i for i in range(pairs)], "original_max_position_embeddings": 64}


def heads(count, keys, dim=None):
    return {"num_attention_heads": count, "num_key_value_heads": keys, **({"head_dim": dim} if dim else {})}


# name -> (model_type, targets of the adapter, changes to SIZES)
FAMILIES = {
    "llama": ("llama", LLAMA, {}),
    "mistral": ("mistral", LLAMA, {"sliding_window": 24}),
    "qwen2": ("qwen2", LLAMA, {"use_sliding_window": False}),
    "qwen3": ("qwen3", LLAMA, {"head_dim": 16}),
    "gemma": ("gemma", LLAMA, {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": ("gemma2", LLAMA, {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 20,
                                 "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    "gemma3_text": ("gemma3_text", LLAMA, {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 20,
                                           "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi3": ("phi3", FUSED, {}),
    "phi": ("phi", PHI, {"num_key_value_heads": 4}),
    "olmo2": ("olmo2", LLAMA, {}),
    "smollm3": ("smollm3", LLAMA, {"no_rope_layer_interval": 2}),
    "granite": ("granite", LLAMA, {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0,
                                   "attention_multiplier": 0.2}),
    "gpt2": ("gpt2", GPT2, GPT2_SIZES),
    "gpt_neox": ("gpt_neox", NEOX, {}),
    "mixtral": ("mixtral", ATTENTION, MIXTRAL),
    "qwen2_moe": ("qwen2_moe", ATTENTION, {**QWEN_MOE, "shared_expert_intermediate_size": 40}),
    "qwen3_moe": ("qwen3_moe", ATTENTION, {**QWEN_MOE, "head_dim": 16}),
}

SWITCHES = {
    "llama, odd heads": ("llama", LLAMA, {**heads(5, 1, 8), "hidden_size": 40}),
    "llama, tied, biases": ("llama", LLAMA, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, gelu": ("llama", LLAMA, {"hidden_act": "gelu"}),
    "llama, llama3 rope": ("llama", LLAMA, {"rope_parameters": {**LLAMA3, "rope_theta": 10000.0}}),
    "llama, yarn": ("llama", LLAMA, {"rope_parameters": {**YARN, "rope_theta": 10000.0}}),
    "mistral, no window, head_dim": ("mistral", LLAMA, {"sliding_window": None, "head_dim": 12}),
    "mistral, window of one block": ("mistral", LLAMA, {"sliding_window": 130}),
    "qwen2, window on later layers": ("qwen2", LLAMA, {"use_sliding_window": True, "sliding_window": 20,
                                                       "max_window_layers": 1, "hidden_size": 48,
                                                       **heads(6, 3)}),
    "qwen2, tied": ("qwen2", LLAMA, {"tie_word_embeddings": True}),
    "qwen3, bias, window": ("qwen3", LLAMA, {"head_dim": 8, "attention_bias": True, "use_sliding_window": True,
                                             "sliding_window": 20, "max_window_layers": 2}),
    "gemma, untied": ("gemma", LLAMA, {"head_dim": 8, "tie_word_embeddings": False}),
    "gemma2, no caps": ("gemma2", LLAMA, {"head_dim": 16, "sliding_window": 24, "attn_logit_softcapping": None,
                                          "final_logit_softcapping": None}),
    "gemma3, scaled rope": ("gemma3_text", LLAMA, {
        "head_dim": 16, "sliding_window": 20, "sliding_window_pattern": 3,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}),
    "phi3, longrope, window": ("phi3", FUSED, {"rope_parameters": {**longrope(4), "rope_theta": 10000.0},
                                               "original_max_position_embeddings": 64, "sliding_window": 40}),
    "phi3, partial rotary longrope": ("phi3", FUSED, {
        "hidden_size": 64, "rope_parameters": {**longrope(6), "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
        "original_max_position_embeddings": 64}),
    "phi, norms on heads, grouped": ("phi", PHI, {"qk_layernorm": True,
                                                  "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 500.0,
                                                                      "rope_type": "default"}}),
    "olmo2, odd heads": ("olmo2", LLAMA, {**heads(4, 4), "attention_bias": False, "tie_word_embeddings": True}),
    "smollm3, window where no rope": ("smollm3", LLAMA, {"no_rope_layers": [1, 0, 1], "use_sliding_window": True,
                                                         "sliding_window": 20, "tie_word_embeddings": False}),
    "granite, tied, bias": ("granite", LLAMA, {"attention_bias": True, "tie_word_embeddings": True,
                                               "attention_multiplier": 0.3}),
    "gpt2, scaled by layer": ("gpt2", GPT2, {**GPT2_SIZES, "n_inner": 56, "scale_attn_by_inverse_layer_idx": True,
                                             "activation_function": "relu"}),
    "gpt2, unscaled, untied": ("gpt2", GPT2, {**GPT2_SIZES, "scale_attn_weights": False, "tie_word_embeddings": False}),
    "gpt_neox, sequential, no bias": ("gpt_neox", NEOX, {"use_parallel_residual": False, "attention_bias": False,
                                                         "rotary_pct": 0.5}),
    "mixtral, window": ("mixtral", ATTENTION, {**MIXTRAL, "sliding_window": 24}),
    "mixtral, auxiliary loss": ("mixtral", ATTENTION, {**MIXTRAL, "output_router_logits": True,
                                                       "router_aux_loss_coef": 0.3}),
    "qwen2_moe, mixed layers": ("qwen2_moe", ATTENTION, {**QWEN_MOE, "norm_topk_prob": False, "mlp_only_layers": [0],
                                                         "shared_expert_intermediate_size": 40, "qkv_bias": False}),
    "qwen3_moe, sparse step": ("qwen3_moe", ATTENTION, {**QWEN_MOE, "head_dim": 8, "decoder_sparse_step": 2,
                                                        "num_experts_per_tok": 3}),
}


def make(folder, name, dtype=torch.float32, seed=0):
    """A model folder with a tokenizer, as transformers saves it; returns the folder."""
    model_type, _, changes = {**FAMILIES, **SWITCHES}[name]
    sizes = {} if model_type == "gpt2" else SIZES
    config = AutoConfig.for_model(model_type, **{**sizes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
                                                 **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norms vary around what they begin with; matrices are large enough that tokens differ in likelihood.
            parameter.copy_(parameter + 0.2 * noise if parameter.dim() == 1 else noise * (0.5 if "embed" in key or "wte" in key else 0.2))
    toy.make_tokenizer(folder, config.vocab_size)
    model.to(dtype).save_pretrained(folder)
    return folder


def targets(name):
    return {**FAMILIES, **SWITCHES}[name][1]
