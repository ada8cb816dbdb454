#include "finetune/model/placement.h"

#include "finetune/base/error.h"

#include <ATen/Context.h>

namespace finetune {

namespace {

/// Every CPU with AMX has AVX512_BF16 too.
bool cpu_multiplies_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace

at::Device resolve_device(Device device) {
  const bool has_cuda = at::hasCUDA();
  const bool usable = has_cuda && at::getNumGPUs() > 0;
  if (device == Device::cuda && !usable) {
    fail(ErrorKind::resource,
         "device: cuda was asked for, but LibTorch finds no CUDA device ({}); use device: cpu",
         has_cuda ? "none is visible" : "it was built without CUDA, or the driver is missing");
  }
  if (device == Device::cpu || !usable) return at::Device(at::kCPU);
  return at::Device(at::kCUDA, 0);
}

at::ScalarType resolve_dtype(Dtype dtype, const at::Device& device, at::ScalarType stored,
                             ModelUse use) {
  switch (dtype) {
    case Dtype::float32:
      return at::kFloat;
    case Dtype::bfloat16:
      return at::kBFloat16;
    case Dtype::float16:
      return at::kHalf;
    case Dtype::automatic:
      break;
  }
  if (use == ModelUse::eval && stored == at::kFloat) return at::kFloat;
  return device.is_cuda() || cpu_multiplies_bfloat16() ? at::kBFloat16 : at::kFloat;
}

std::string dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    default:
      return at::toString(dtype);
  }
}

}  // namespace finetune
