#include "finetune/model/write_model.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/model_config.h"
#include "finetune/model/placement.h"
#include "finetune/text/tokenizer.h"
#include "model/stored_names.h"

#include <nlohmann/json.hpp>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kIndexFile = "model.safetensors.index.json";

/// Files beside weights and tokenizer that a model folder carries along.
constexpr const char* kCompanions[] = {"generation_config.json"};

/// The order of the data in the file, so that the copy lies as the original.
std::vector<TensorPlan> plan_of(const SafetensorsFile& file, std::optional<at::ScalarType> dtype) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, info] : file.tensors()) infos.push_back(info);
  std::sort(infos.begin(), infos.end(),
            [](const TensorInfo& x, const TensorInfo& y) { return x.begin < y.begin; });
  std::vector<TensorPlan> plan;
  for (const TensorInfo& info : infos) {
    const bool converts = dtype && at::isFloatingType(info.dtype);
    plan.push_back({info.name, converts ? *dtype : info.dtype, info.shape});
  }
  return plan;
}

ordered_json read_object(const fs::path& path) {
  ordered_json object = ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!object.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  return object;
}

void copy_file_atomically(const fs::path& from, const fs::path& to) {
  write_file_atomically(to, read_file(from, ErrorKind::model));
}

void write_index(const fs::path& base, const fs::path& output, std::uint64_t total_bytes,
                 const std::map<std::string, std::string>& added) {
  ordered_json index = read_object(base / kIndexFile);
  index["metadata"]["total_size"] = total_bytes;
  for (const auto& [name, shard] : added) index["weight_map"][name] = shard;
  write_file_atomically(output / kIndexFile, index.dump(2) + "\n");
}

void write_config(const fs::path& base, const fs::path& output, const ModelChanges& changes) {
  ordered_json config = read_object(base / "config.json");
  const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
  const bool converts = changes.dtype && config.value(key, "") != dtype_name(*changes.dtype);
  if (!converts && !changes.untie) {
    copy_file_atomically(base / "config.json", output / "config.json");
    return;
  }
  if (converts) config[key] = dtype_name(*changes.dtype);
  if (changes.untie) config["tie_word_embeddings"] = false;
  write_file_atomically(output / "config.json", config.dump(2) + "\n");
}

/// Of two tied tensors the one that is not stored, and the one that is (full names); empty when
/// both are there.
std::pair<std::string, std::string> missing_twin(const ModelConfig& config,
                                                 const WeightFolder& weights,
                                                 const StoredNames& names) {
  const std::string embeddings = config.names.prefix + config.names.embeddings + ".weight",
                    head = config.names.heads.front() + ".weight";
  if (weights.find(names.stored(head)) == nullptr) return {head, embeddings};
  if (weights.find(names.stored(embeddings)) == nullptr) return {embeddings, head};
  return {};
}

}  // namespace

void write_model_folder(const fs::path& base, const fs::path& output, const ModelChanges& changes) {
  const WeightFolder weights(base);
  const ModelConfig config = read_model_config(base);
  const StoredNames names(config, weights);
  make_folder(output);
  std::uint64_t total_bytes = 0;
  std::map<std::string, std::string> added;  // name -> shard
  const auto [twin, twin_of] =
      changes.untie ? missing_twin(config, weights, names) : std::pair<std::string, std::string>();
  for (const WeightFolder::Shard& shard : weights.shards()) {
    std::vector<TensorPlan> plan = plan_of(shard.file, changes.dtype);
    for (std::size_t i = 0, stored = plan.size(); i < stored; ++i) {
      if (twin.empty() || names.full(plan[i].name) != twin_of) continue;
      TensorPlan copy = plan[i];
      copy.name = twin;
      plan.push_back(copy);
      added[twin] = shard.file_name;
    }
    const auto produce = [&](const TensorPlan& tensor) {
      const bool is_added = added.contains(tensor.name);
      const std::string name = is_added ? tensor.name : names.full(tensor.name);
      const bool transposed = config.stores_transposed(name);
      const Tensor stored = shard.file.tensor(is_added ? names.stored(twin_of) : tensor.name);
      const Tensor changed =
          changes.change(name, transposed ? stored.t() : stored).to(tensor.dtype);
      const Tensor result = (transposed ? changed.t() : changed).contiguous();
      total_bytes += result.nbytes();
      return result;
    };
    write_safetensors(output / shard.file_name, plan, produce, {{"format", "pt"}});
  }
  if (fs::exists(base / kIndexFile)) write_index(base, output, total_bytes, added);
  for (const char* name : kCompanions) {
    if (fs::exists(base / name)) copy_file_atomically(base / name, output / name);
  }
  for (const fs::path& file : tokenizer_files(base))
    copy_file_atomically(file, output / file.filename());
  write_config(base, output, changes);
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
