#include "train/reference_cache.h"

#include "finetune/base/cache_folder.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/adapters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kPrefix = "reference-";
constexpr std::size_t kMostFiles = 16;
constexpr const char* kTensor = "log_probabilities";

/// Of all files that make the base.
std::string base_identity(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json")
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string identity;
  for (const fs::path& file : files) identity += file_hash(file, ErrorKind::model) + "\n";
  return identity;
}

std::string adapter_identity(const CausalLM& model) {
  // Slots are visited as what training may replace; nothing is changed here.
  const SavedAdapter adapter = adapter_of(const_cast<CausalLM&>(model));
  std::string identity;
  if (const auto* peft = std::get_if<PeftAdapter>(&adapter)) identity = peft_config_json(*peft);
  if (const auto* bottleneck = std::get_if<BottleneckAdapter>(&adapter))
    identity = fmt::format("{} {} {}\n", to_string(bottleneck->placement),
                           bottleneck->non_linearity, bottleneck->scaling);
  for (const auto& [name, tensor] : stored_tensors(adapter)) {
    const Tensor plain = tensor.cpu().contiguous();
    identity += name + " " +
                content_hash(std::span(static_cast<const std::byte*>(plain.const_data_ptr()),
                                       plain.nbytes())) +
                "\n";
  }
  return identity;
}

/// Rounding differs with the number of rows and threads that compute together, and rewards are to
/// begin at exactly 0.
std::string identity_of(const Config& config, const CausalLM& model, const Dataset& data,
                        bool share_prefixes) {
  std::string identity = fmt::format(
      "{} {} {} {} {} {} {} {} {}\n", FINETUNE_VERSION, data.content_hash, to_string(config.stage),
      c10::toString(model.compute_dtype), model.device.str(), at::get_num_threads(),
      config.eval_batch_size(), share_prefixes, to_string(config.quantization));
  if (config.stage == Stage::kto)
    identity += fmt::format("{} {}\n", config.per_device_train_batch_size, config.max_length);
  if (config.quantization == Quantization::nf4) identity += config.double_quant ? "double\n" : "";
  identity += base_identity(config.model_name_or_path);
  return config.method == Method::full ? identity : identity + adapter_identity(model);
}

}  // namespace

ReferenceCache::ReferenceCache(const Config& config, const CausalLM& model, const Dataset& data,
                               bool share_prefixes) {
  const fs::path folder = cache_folder();
  if (folder.empty()) return;
  try {
    const std::string identity = identity_of(config, model, data, share_prefixes);
    file_ = folder / (kPrefix + content_hash(identity) + ".safetensors");
  } catch (const std::exception& error) {
    log_verbose("train", "the reference is not kept: {}", error.what());
  }
}

std::optional<std::vector<double>> ReferenceCache::read(std::size_t count) const {
  std::error_code absent;
  if (file_.empty() || !fs::exists(file_, absent)) return std::nullopt;
  try {
    const SafetensorsFile file(file_);
    const Tensor values = file.tensor(kTensor);
    if (values.scalar_type() != at::kDouble || values.numel() != static_cast<std::int64_t>(count))
      return std::nullopt;
    const auto* begin = values.const_data_ptr<double>();
    fs::last_write_time(file_, fs::file_time_type::clock::now(), absent);  // recently used
    return std::vector<double>(begin, begin + count);
  } catch (const std::exception& error) {
    log_verbose("train", "{} is not used: {}", file_.string(), error.what());
    return std::nullopt;
  }
}

void ReferenceCache::write(const std::vector<double>& log_probabilities) const {
  if (file_.empty()) return;
  try {
    make_folder(file_.parent_path());
    write_safetensors(file_, {{kTensor, at::tensor(log_probabilities, at::kDouble)}}, {});
    prune_cache(file_.parent_path(), kPrefix, kMostFiles);
    log_verbose("train", "the reference is kept in {}", file_.string());
  } catch (const std::exception& error) {
    log_verbose("train", "the reference is not kept: {}", error.what());
  }
}

}  // namespace finetune
