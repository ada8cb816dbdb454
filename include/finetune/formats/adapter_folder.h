#pragma once

#include "finetune/formats/adapter_hub.h"
#include "finetune/formats/peft.h"

#include <filesystem>
#include <map>
#include <string>
#include <variant>

namespace finetune {

/// An adapter on disk: PEFT's (LoRA and (IA)3), or the `adapters` library's (bottlenecks).
using SavedAdapter = std::variant<PeftAdapter, BottleneckAdapter>;

/// Reads an adapter folder in the format that its adapter_config.json shows. Throws Error(model) as
/// read_peft_adapter and read_bottleneck_adapter do.
SavedAdapter read_adapter(const std::filesystem::path& folder);

/// The same for an adapter that writes text. Throws Error(model) for one of a reward model, which
/// gives numbers.
SavedAdapter read_text_adapter(const std::filesystem::path& folder);

/// Whether it makes a reward model of its base.
bool is_reward_adapter(const SavedAdapter& adapter);

/// Writes the files of an adapter in its format into a folder that is there. Throws
/// Error(resource).
void write_adapter(const std::filesystem::path& folder, const SavedAdapter& adapter);

/// The tensors as they are stored, by name.
std::map<std::string, Tensor> stored_tensors(const SavedAdapter& adapter);

/// The base model that the adapter names, "" for none.
std::string& base_model(SavedAdapter& adapter);
const std::string& base_model(const SavedAdapter& adapter);

}  // namespace finetune
