#pragma once

#include <optional>
#include <string_view>

namespace finetune {

/// What an MLP does to its inner values. `gelu_tanh` is the tanh approximation, which Hugging Face
/// calls gelu_new, gelu_fast or gelu_pytorch_tanh.
enum class Activation { silu, gelu, gelu_tanh, relu, tanh };

/// The activation that Hugging Face calls by this name ("swish", "gelu_new"), or nothing.
std::optional<Activation> parse_activation(std::string_view name);

/// Its name in Hugging Face's files.
std::string_view activation_name(Activation activation);

}  // namespace finetune
