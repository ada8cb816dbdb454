#pragma once

#include "train/example_source.h"

namespace finetune {

/// The largest micro-batch of a run, forward and back, before its first step: a machine without
/// room for it tells at once, not after hours. Changes nothing but gradients. Not where a gradient
/// is applied as soon as it is there, nor in runs that are hardly longer than this. Throws
/// Error(resource), or what LibTorch throws without memory.
void rehearse(ExampleSource& source, const Objective& objective, const CausalLM& model,
              const Config& config, bool share_prefixes);

}  // namespace finetune
