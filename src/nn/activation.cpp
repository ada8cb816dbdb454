#include "finetune/nn/activation.h"

#include "finetune/base/error.h"

#include <utility>

namespace finetune {

namespace {

/// The first name of each is the one we write.
constexpr std::pair<std::string_view, Activation> kActivationNames[] = {
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"gelu", Activation::gelu},
    {"gelu_python", Activation::gelu},
    {"gelu_new", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"relu", Activation::relu},
    {"tanh", Activation::tanh}};

}  // namespace

std::optional<Activation> parse_activation(std::string_view name) {
  for (const auto& [word, activation] : kActivationNames) {
    if (word == name) return activation;
  }
  return std::nullopt;
}

std::string_view activation_name(Activation activation) {
  for (const auto& [word, value] : kActivationNames) {
    if (value == activation) return word;
  }
  FT_CHECK(false, "activation {}", static_cast<int>(activation));
}

}  // namespace finetune
