#pragma once

#include "finetune/base/file.h"
#include "finetune/base/tensor.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace finetune {

/// What a safetensors header says of one tensor.
struct TensorInfo {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< byte offsets in the data part
  std::uint64_t end = 0;

  std::uint64_t bytes() const { return end - begin; }
};

/// A safetensors file mapped into memory. The header is checked in full when opening: its length,
/// JSON, dtypes, shapes, and that the tensors cover the data without holes or overlaps. Source: the
/// format description of huggingface/safetensors.
class SafetensorsFile {
 public:
  /// Throws Error(model) with the path and the reason (Git LFS pointer, truncated file, lying
  /// header ...).
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The tensor over the mapped bytes, without a copy; it keeps the mapping alive. Read-only:
  /// writing to it is undefined. Unaligned data are copied. Throws Error(model) when the name is
  /// not there.
  Tensor tensor(const std::string& name) const;
  /// Takes the tensor's mapped bytes out of this process's memory, where they were read for the
  /// last time.
  void release(const std::string& name) const;

 private:
  void parse_header();
  void check_coverage(std::uint64_t data_bytes) const;

  std::shared_ptr<MappedFile> file_;
  std::uint64_t data_offset_ = 0;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// All tensors of a model folder: `model.safetensors`, or the shards of
/// `model.safetensors.index.json`.
class WeightFolder {
 public:
  /// Throws Error(model): nothing there, only pytorch_model.bin (with how to convert it), shards
  /// missing or leaving the folder, a tensor in two shards, an index that names absent tensors.
  explicit WeightFolder(const std::filesystem::path& folder);

  struct Shard {
    std::string file_name;
    SafetensorsFile file;
  };
  const std::vector<Shard>& shards() const { return shards_; }
  std::vector<std::string> names() const;
  /// nullptr when the name is not there.
  const TensorInfo* find(const std::string& name) const;
  Tensor tensor(const std::string& name) const;
  /// As SafetensorsFile::release.
  void release(const std::string& name) const;

 private:
  void open_shard(const std::filesystem::path& folder, const std::string& file_name);

  std::vector<Shard> shards_;
  std::map<std::string, std::size_t> shard_of_;
};

/// Name, type and shape of a tensor that is going to be written.
struct TensorPlan {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> shape;
};

/// Writes a safetensors file atomically. `fill` writes the bytes of one tensor after the other, in
/// pieces as large as it likes. Throws Error(resource) when the disk refuses.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorPlan>& plan,
                       const std::function<void(const TensorPlan&, const WriteBytes&)>& fill,
                       const std::map<std::string, std::string>& metadata);

/// The same, with one whole tensor after the other in memory.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorPlan>& plan,
                       const std::function<Tensor(const TensorPlan&)>& produce,
                       const std::map<std::string, std::string>& metadata);

/// The same for tensors that are in memory already.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

/// "F32", "BF16" ... as safetensors spells it; throws Error(model) for a type it has no name for.
std::string safetensors_dtype(at::ScalarType dtype);

/// "[3, 4]"
std::string format_shape(const std::vector<std::int64_t>& shape);

}  // namespace finetune
