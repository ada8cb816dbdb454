#include "model/quantized_weights.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/model/placement.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <cstring>
#include <limits>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr const char* kState = ".quant_state.bitsandbytes__nf4";
constexpr const char* kStates = ".quant_state.bitsandbytes__";
constexpr const char* kVersion = "1";        // of the cache
constexpr double kQuantMapTolerance = 1e-6;  // the table's numbers lie 0.07 apart and more

[[noreturn]] void fail_weight(const std::string& name, const std::string& reason) {
  fail(ErrorKind::model, "the NF4 weight {} {}", name, reason);
}

/// A part of an NF4 weight, flattened and checked.
Tensor part(const WeightFolder& weights, const std::string& name, const std::string& suffix,
            at::ScalarType dtype, std::int64_t count) {
  const TensorInfo* info = weights.find(name + suffix);
  if (info == nullptr) fail_weight(name, fmt::format("has no tensor {}{}", name, suffix));
  const Tensor stored = weights.tensor(name + suffix).reshape({-1});
  if (info->dtype != dtype || stored.numel() != count) {
    fail_weight(name, fmt::format("has {}{} of {} {}; expected {} {}", name, suffix, stored.numel(),
                                  safetensors_dtype(info->dtype), count, safetensors_dtype(dtype)));
  }
  return stored;
}

json read_state(const WeightFolder& weights, const std::string& name) {
  const Tensor bytes = weights.tensor(name + kState).contiguous();
  const json state = json::parse(std::string_view(static_cast<const char*>(bytes.const_data_ptr()),
                                                  static_cast<std::size_t>(bytes.nbytes())),
                                 nullptr, false);
  if (!state.is_object()) fail_weight(name, fmt::format("has a {} that is not JSON", kState + 1));
  return state;
}

at::ScalarType parse_dtype(const std::string& name, const std::string& word) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    if (word == dtype_name(dtype)) return dtype;
  }
  fail_weight(name, fmt::format("was made of \"{}\"; expected float32, bfloat16 or float16", word));
}

/// The 16 numbers that the codes stand for must be those of NF4: computing uses the table alone.
void check_quant_map(const WeightFolder& weights, const std::string& name) {
  const Tensor map = part(weights, name, ".quant_map", at::kFloat, 16);
  if (at::allclose(map, nf4_quant_map(), 0.0, kQuantMapTolerance)) return;
  fail_weight(
      name, "has a .quant_map that is not the table of NF4; this version reads bitsandbytes' NF4");
}

/// Shape, type and offset; false or a nonsensical value throws.
void read_header(const json& state, const std::string& name, bool nested, Nf4Tensor& weight) {
  try {
    if (state.at("quant_type") != "nf4") {
      fail_weight(name, fmt::format("is of type {}; this version reads bitsandbytes' nf4",
                                    state.at("quant_type").dump()));
    }
    const auto shape = state.at("shape").get<std::vector<std::int64_t>>();
    const auto block = state.at("blocksize").get<std::int64_t>();
    const auto nested_block =
        nested ? state.at("nested_blocksize").get<std::int64_t>() : kNf4NestedBlock;
    if (block != kNf4Block || nested_block != kNf4NestedBlock) {
      fail_weight(name, fmt::format("has blocks of {} and {}; this version reads {} and {}", block,
                                    nested_block, kNf4Block, kNf4NestedBlock));
    }
    if (shape.size() != 2 || shape[0] <= 0 || shape[1] <= 0 ||
        shape[0] > std::numeric_limits<std::int64_t>::max() / 8 / shape[1]) {
      fail_weight(name, "was made of " + format_shape(shape) + "; expected a matrix");
    }
    weight.out = shape[0];
    weight.in = shape[1];
    weight.dtype = parse_dtype(name, state.at("dtype").get<std::string>());
    if (nested) weight.offset = static_cast<float>(state.at("nested_offset").get<double>());
  } catch (const json::exception& error) {
    fail_weight(name, fmt::format("has a {} that is not as bitsandbytes writes it ({})", kState + 1,
                                  without_exception_name(error.what())));
  }
}

Tensor bytes_tensor(const std::string& text) {
  Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

}  // namespace

void check_quantization_config(const fs::path& folder) {
  const json config =
      json::parse(read_file(folder / "config.json", ErrorKind::model), nullptr, false);
  if (!config.is_object() || !config.contains(kQuantizationConfig)) return;
  const json& quantization = config.at(kQuantizationConfig);
  if (!quantization.is_object()) return;
  const auto word = [&](const char* key) {
    return quantization.contains(key) && quantization.at(key).is_string()
               ? quantization.at(key).get<std::string>()
               : std::string();
  };
  const auto is_on = [&](const char* key) {
    return quantization.contains(key) && quantization.at(key) == true;
  };
  std::string method = word("quant_method");
  if (method.empty() || method == "bitsandbytes") {
    if (is_on("load_in_4bit") && word("bnb_4bit_quant_type") == "nf4") return;
    if (!is_on("load_in_4bit") && !is_on("load_in_8bit")) return;
    method = is_on("load_in_8bit") ? "bitsandbytes' int8" : "bitsandbytes' fp4";
  }
  fail(ErrorKind::model,
       "{}: its weights are quantized with {}; this version reads float weights and bitsandbytes' "
       "NF4. Use the original model, with quantization: nf4 or int8",
       (folder / "config.json").string(), method);
}

bool is_nf4(const WeightFolder& weights, const std::string& name) {
  return weights.find(name + kState) != nullptr;
}

void check_quant_states(const WeightFolder& weights) {
  for (const std::string& name : weights.names()) {
    const std::size_t begin = name.find(kStates);
    if (begin == std::string::npos || name.ends_with(kState)) continue;
    fail(ErrorKind::model,
         "the weight {} is quantized in bitsandbytes' {}; this version reads its nf4. Use the "
         "original model, with quantization: nf4",
         name.substr(0, begin), name.substr(begin + std::string_view(kStates).size()));
  }
}

std::vector<std::string> nf4_parts(const WeightFolder& weights, const std::string& name) {
  std::vector<std::string> names = {name};
  for (const char* suffix :
       {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", kState}) {
    if (weights.find(name + suffix) != nullptr) names.push_back(name + suffix);
  }
  return names;
}

Nf4Tensor read_nf4(const WeightFolder& weights, const std::string& name) {
  const bool nested = weights.find(name + ".nested_absmax") != nullptr;
  Nf4Tensor weight;
  read_header(read_state(weights, name), name, nested, weight);
  check_quant_map(weights, name);
  // The codes may be stored as another type (bnb_4bit_quant_storage); their bytes are the same.
  if (weights.find(name) == nullptr) fail_weight(name, "has no tensor " + name);
  weight.codes = weights.tensor(name).reshape({-1}).view(at::kByte);
  const std::int64_t expected = (weight.out * weight.in + 1) / 2;
  if (weight.codes.numel() != expected) {
    fail_weight(name, fmt::format("has {} bytes of codes; expected {} for {}", weight.codes.numel(),
                                  expected, format_shape({weight.out, weight.in})));
  }
  weight.absmax = part(weights, name, ".absmax", nested ? at::kByte : at::kFloat, weight.blocks());
  if (!nested) return weight;
  weight.nested_absmax = part(weights, name, ".nested_absmax", at::kFloat,
                              (weight.blocks() + kNf4NestedBlock - 1) / kNf4NestedBlock);
  weight.nested_quant_map = part(weights, name, ".nested_quant_map", at::kFloat, 256);
  return weight;
}

ordered_json nf4_quantization_config(bool double_quant) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", double_quant},
          {"bnb_4bit_compute_dtype", "float32"},
          {"bnb_4bit_quant_storage", "uint8"}};
}

std::map<std::string, Tensor> nf4_tensors(const std::string& name, const Nf4Tensor& weight) {
  ordered_json state = {{"quant_type", "nf4"},
                        {"blocksize", kNf4Block},
                        {"dtype", dtype_name(weight.dtype)},
                        {"shape", {weight.out, weight.in}}};
  std::map<std::string, Tensor> tensors = {{name, weight.codes.unsqueeze(1)},
                                           {name + ".absmax", weight.absmax},
                                           {name + ".quant_map", nf4_quant_map()}};
  if (weight.double_quant()) {
    tensors[name + ".nested_absmax"] = weight.nested_absmax;
    tensors[name + ".nested_quant_map"] = weight.nested_quant_map;
    state["nested_blocksize"] = kNf4NestedBlock;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = static_cast<double>(weight.offset);
  }
  tensors[name + kState] = bytes_tensor(state.dump());
  return tensors;
}

QuantizedCache::QuantizedCache(const fs::path& folder, const WeightFolder& weights,
                               bool double_quant) {
  const char* root = std::getenv("FINETUNE_CACHE_DIR");
  if (root == nullptr || *root == '\0') return;
  std::string key = fmt::format("nf4 {} {}", kVersion, double_quant);
  std::error_code code;
  for (const WeightFolder::Shard& shard : weights.shards()) {
    const fs::path file = fs::canonical(folder / shard.file_name, code);
    key += fmt::format("\n{} {} {}", file.string(), fs::file_size(file, code),
                       fs::last_write_time(file, code).time_since_epoch().count());
  }
  folder_ = fs::path(root) / ("nf4-" + content_hash(key));
}

std::optional<WeightFolder> QuantizedCache::open() const {
  if (folder_.empty() || !fs::is_regular_file(folder_ / "model.safetensors")) return std::nullopt;
  try {
    return WeightFolder(folder_);
  } catch (const Error& error) {
    log_warning("model", "the cached quantized weights are made again: {}", error.what());
    return std::nullopt;
  }
}

void QuantizedCache::write(const std::map<std::string, const Nf4Tensor*>& weights) const {
  if (folder_.empty() || weights.empty()) return;
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, weight] : weights) tensors.merge(nf4_tensors(name, *weight));
  try {
    make_folder(folder_);
    write_safetensors(folder_ / "model.safetensors", tensors, {{"format", "pt"}});
  } catch (const Error& error) {
    log_warning("model", "the quantized weights are not cached: {}", error.what());
  }
}

}  // namespace finetune
