#pragma once

#include "finetune/config/choices.h"
#include "finetune/model/causal_lm.h"

namespace finetune {

/// What a loaded model is used for; `dtype: auto` depends on it.
enum class ModelUse { train, eval };

/// The device of a setting; `auto` is CUDA where there is one. Throws Error(resource) for a device
/// that is not there.
at::Device resolve_device(Device device);

/// The computing type of a setting. `auto` in training: bfloat16 where the device multiplies it
/// natively (CUDA, or a CPU with AVX512_BF16 or AMX), else float32. In evaluation a checkpoint that
/// is stored in float32 stays in float32.
at::ScalarType resolve_dtype(Dtype dtype, const at::Device& device, at::ScalarType stored,
                             ModelUse use);

/// "float32", "bfloat16", "float16": as config.json and our configuration spell it.
std::string dtype_name(at::ScalarType dtype);

}  // namespace finetune
