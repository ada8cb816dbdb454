#include "finetune/model/write_model.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/model_config.h"
#include "finetune/model/placement.h"
#include "finetune/text/tokenizer.h"
#include "model/base_tensors.h"
#include "model/quantized_weights.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <tuple>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

bool has_row_per_token(const ModelConfig& config, const std::string& name) {
  const ParameterNames& names = config.names;
  return name == names.prefix + names.embeddings + ".weight" ||
         std::any_of(names.heads.begin(), names.heads.end(), [&](const std::string& head) {
           return name == head + ".weight" || name == head + ".bias";
         });
}

namespace {

constexpr const char* kIndexFile = "model.safetensors.index.json";

/// Files beside weights and tokenizer that a model folder carries along.
constexpr const char* kCompanions[] = {"generation_config.json"};

ordered_json read_object(const fs::path& path) {
  ordered_json object = ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!object.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  return object;
}

void copy_file_atomically(const fs::path& from, const fs::path& to) {
  write_file_atomically(to, read_file(from, ErrorKind::model));
}

/// Of two tied tensors the one that is not stored, and the one that is (full names); empty when
/// both are there.
std::pair<std::string, std::string> missing_twin(const BaseTensors& base) {
  const ParameterNames& names = base.config().names;
  const std::string embeddings = names.prefix + names.embeddings + ".weight",
                    head = names.heads.front() + ".weight";
  if (!base.has(head)) return {head, embeddings};
  if (!base.has(embeddings)) return {embeddings, head};
  return {};
}

class FolderWriter {
 public:
  FolderWriter(const fs::path& base, const fs::path& output, const ModelChanges& changes)
      : base_(base, changes.trained), folder_(base), output_(output), changes_(changes) {
    if (changes.untie) std::tie(twin_, twin_of_) = missing_twin(base_);
    if (!twin_.empty()) base_.add_twin(twin_, twin_of_);
    for (const std::string& name : base_.full_names()) whole_.insert(name);
  }

  void run() {
    make_folder(output_);
    for (const WeightFolder::Shard& shard : base_.files().shards())
      changes_.requantize ? write_requantized(shard) : write_numbers(shard);
    if (fs::exists(folder_ / kIndexFile)) write_index();
    for (const char* name : kCompanions) {
      if (fs::exists(folder_ / name)) copy_file_atomically(folder_ / name, output_ / name);
    }
    for (const fs::path& file : tokenizer_files(folder_))
      copy_file_atomically(file, output_ / file.filename());
    write_config();
  }

 private:
  /// Full names of what a shard holds, in the order of the data, so that the copy lies as the
  /// original.
  std::vector<std::string> names_in(const WeightFolder::Shard& shard) const {
    std::vector<TensorInfo> infos;
    for (const auto& [name, info] : shard.file.tensors()) infos.push_back(info);
    std::sort(infos.begin(), infos.end(),
              [](const TensorInfo& x, const TensorInfo& y) { return x.begin < y.begin; });
    std::vector<std::string> names;
    for (const TensorInfo& info : infos) {
      const std::string name = base_.names().full(info.name);
      if (whole_.contains(name)) names.push_back(name);
    }
    if (!twin_.empty() && std::find(names.begin(), names.end(), twin_of_) != names.end())
      names.push_back(twin_);
    return names;
  }

  at::ScalarType dtype(const std::string& name) const {
    const at::ScalarType stored = base_.dtype(name);
    return changes_.dtype && at::isFloatingType(stored) ? *changes_.dtype : stored;
  }

  std::vector<std::int64_t> shape(const std::string& name) const {
    std::vector<std::int64_t> shape = base_.shape(name);
    if (changes_.vocab_size > 0 && has_row_per_token(base_.config(), name))
      shape[0] = changes_.vocab_size;
    return shape;
  }

  /// The name it is written under.
  std::string written(const std::string& name) const {
    return name == twin_ ? name : base_.names().stored(name);
  }

  void write_numbers(const WeightFolder::Shard& shard) {
    std::map<std::string, std::string> full;
    std::vector<TensorPlan> plan;
    for (const std::string& name : names_in(shard)) {
      std::vector<std::int64_t> sizes = shape(name);
      if (base_.config().stores_transposed(name)) std::swap(sizes[0], sizes[1]);
      plan.push_back({written(name), dtype(name), sizes});
      full[plan.back().name] = name;
    }
    std::string written_before;
    const auto produce = [&](const TensorPlan& tensor) {
      const std::string& name = full.at(tensor.name);
      if (!written_before.empty()) base_.release(written_before);
      written_before = name;
      const Tensor changed = changes_.change(name, base_.tensor(name)).to(tensor.dtype);
      const Tensor result =
          (base_.config().stores_transposed(name) ? changed.t() : changed).contiguous();
      count(tensor.name, result, shard);
      return result;
    };
    write_safetensors(output_ / shard.file_name, plan, produce, {{"format", "pt"}});
  }

  void write_requantized(const WeightFolder::Shard& shard) {
    std::map<std::string, Tensor> tensors;
    for (const std::string& name : names_in(shard)) {
      const Tensor before = base_.tensor(name), changed = changes_.change(name, before);
      if (base_.quantization(name) == Quantization::nf4) {
        tensors.merge(nf4_tensors(written(name), requantized(base_, name, before, changed)));
        continue;
      }
      const bool transposed = base_.config().stores_transposed(name);
      const Tensor result = changed.to(dtype(name));
      tensors[written(name)] = (transposed ? result.t() : result).contiguous();
    }
    for (const auto& [name, tensor] : tensors) count(name, tensor, shard);
    write_safetensors(output_ / shard.file_name, tensors, {{"format", "pt"}});
  }

  void count(const std::string& name, const Tensor& tensor, const WeightFolder::Shard& shard) {
    total_bytes_ += tensor.nbytes();
    shard_of_[name] = shard.file_name;
  }

  void write_index() const {
    ordered_json index = read_object(folder_ / kIndexFile);
    index["metadata"]["total_size"] = total_bytes_;
    index["weight_map"] = shard_of_;
    write_file_atomically(output_ / kIndexFile, index.dump(2) + "\n");
  }

  void write_config() const {
    ordered_json config = read_object(folder_ / "config.json");
    const ordered_json before = config;
    const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
    if (changes_.dtype && config.value(key, "") != dtype_name(*changes_.dtype))
      config[key] = dtype_name(*changes_.dtype);
    if (changes_.untie) config["tie_word_embeddings"] = false;
    if (changes_.vocab_size > 0) config["vocab_size"] = changes_.vocab_size;
    if (!changes_.requantize) {
      config.erase(kQuantizationConfig);
    } else if (!config.contains(kQuantizationConfig)) {
      config[kQuantizationConfig] = nf4_quantization_config(changes_.trained.double_quant);
    }
    if (config == before) {
      copy_file_atomically(folder_ / "config.json", output_ / "config.json");
    } else {
      write_file_atomically(output_ / "config.json", config.dump(2) + "\n");
    }
  }

  BaseTensors base_;
  std::set<std::string> whole_;  ///< full names, without the parts of NF4 weights
  fs::path folder_, output_;
  const ModelChanges& changes_;
  std::string twin_, twin_of_;
  std::uint64_t total_bytes_ = 0;
  std::map<std::string, std::string> shard_of_;
};

}  // namespace

void write_model_folder(const fs::path& base, const fs::path& output, const ModelChanges& changes) {
  FolderWriter(base, output, changes).run();
}

std::map<std::string, Tensor> read_model_tensors(const fs::path& folder) {
  const WeightFolder weights(folder);
  const ModelConfig config = read_model_config(folder);
  const StoredNames names(config, weights);
  std::map<std::string, Tensor> tensors;
  for (const std::string& stored : weights.names()) {
    const std::string name = names.full(stored);
    const Tensor tensor = weights.tensor(stored);
    tensors[name] = config.stores_transposed(name) ? tensor.t() : tensor;
  }
  return tensors;
}

}  // namespace finetune
