#include "finetune/formats/safetensors.h"

#include "finetune/base/text.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit

constexpr std::array<std::pair<const char*, at::ScalarType>, 10> kDtypes = {{
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
}};

[[noreturn]] void fail_file(const fs::path& path, const std::string& reason) {
  fail(ErrorKind::model, "{}: {}", path.string(), reason);
}

at::ScalarType parse_dtype(const fs::path& path, const std::string& tensor,
                           const std::string& name) {
  for (const auto& [spelling, dtype] : kDtypes) {
    if (name == spelling) return dtype;
  }
  fail_file(path,
            fmt::format("tensor '{}' has type \"{}\"; this version reads F64, F32, F16, BF16, "
                        "I64, I32, I16, I8, U8 and BOOL",
                        tensor, name));
}

/// Bytes of a tensor, or nothing when the product does not fit 63 bits, that of an empty tensor's
/// other sizes (its strides) included.
bool checked_bytes(const std::vector<std::int64_t>& shape, std::uint64_t item, std::uint64_t& out) {
  unsigned __int128 total = item;
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return false;
    empty = empty || size == 0;
    total *= static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    if (total > std::numeric_limits<std::int64_t>::max()) return false;
  }
  out = empty ? 0 : static_cast<std::uint64_t>(total);
  return true;
}

/// The library would read a fraction as its whole part.
template <typename T>
std::vector<T> whole_numbers(const json& list) {
  for (const json& number : list) {
    if (!number.is_number_integer()) throw std::invalid_argument(number.dump());
  }
  return list.get<std::vector<T>>();
}

TensorInfo parse_entry(const fs::path& path, const std::string& name, const json& entry) {
  TensorInfo info;
  info.name = name;
  try {
    info.dtype = parse_dtype(path, name, entry.at("dtype").get<std::string>());
    info.shape = whole_numbers<std::int64_t>(entry.at("shape"));
    const auto offsets = whole_numbers<std::uint64_t>(entry.at("data_offsets"));
    if (offsets.size() != 2 || offsets[0] > offsets[1]) throw std::out_of_range("data_offsets");
    info.begin = offsets[0];
    info.end = offsets[1];
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail_file(path, fmt::format(
                        "the header's entry for tensor '{}' is not valid ({}); the file is damaged",
                        name, without_exception_name(error.what())));
  }
  std::uint64_t expected = 0;
  if (!checked_bytes(info.shape, c10::elementSize(info.dtype), expected) ||
      expected != info.bytes()) {
    fail_file(path,
              fmt::format("tensor '{}' {} {} does not fill its {} bytes; the file is damaged", name,
                          safetensors_dtype(info.dtype), format_shape(info.shape), info.bytes()));
  }
  return info;
}

}  // namespace

std::string safetensors_dtype(at::ScalarType dtype) {
  for (const auto& [spelling, type] : kDtypes) {
    if (dtype == type) return spelling;
  }
  fail(ErrorKind::model, "type {} has no name in safetensors", c10::toString(dtype));
}

std::string format_shape(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const fs::path& path)
    : file_(std::make_shared<MappedFile>(path, ErrorKind::model)) {
  parse_header();
}

void SafetensorsFile::parse_header() {
  const fs::path& path = file_->path();
  const auto bytes = file_->bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs")) {
    fail_file(
        path,
        "is a Git LFS pointer, not the weights; run 'git lfs pull' in the model's repository");
  }
  if (bytes.size() < kLengthBytes) {
    fail_file(path, fmt::format("has only {} bytes; not a safetensors file", bytes.size()));
  }
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - kLengthBytes) {
    fail_file(path,
              fmt::format("its header claims {} bytes, the file has {}; it is truncated or not a "
                          "safetensors file",
                          header_bytes, bytes.size()));
  }
  data_offset_ = kLengthBytes + header_bytes;
  const json header = json::parse(text.substr(kLengthBytes, header_bytes), nullptr, false);
  if (!header.is_object()) fail_file(path, "its header is not a JSON object; the file is damaged");
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      tensors_.emplace(name, parse_entry(path, name, entry));
    } else if (entry.is_object()) {
      for (const auto& [key, value] : entry.items()) {
        if (value.is_string()) metadata_.emplace(key, value.get<std::string>());
      }
    }
  }
  check_coverage(bytes.size() - data_offset_);
}

void SafetensorsFile::check_coverage(std::uint64_t data_bytes) const {
  std::vector<const TensorInfo*> order;
  for (const auto& [name, info] : tensors_) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t position = 0;
  for (const TensorInfo* info : order) {
    if (info->begin != position) {
      fail_file(file_->path(),
                fmt::format("tensor '{}' starts at byte {} of the data where {} was expected; "
                            "tensors overlap or leave a hole, the file is damaged",
                            info->name, info->begin, position));
    }
    position = info->end;
  }
  if (position != data_bytes) {
    fail_file(file_->path(),
              fmt::format("the header describes {} bytes of data, the file holds {}; it is "
                          "{}",
                          position, data_bytes, position > data_bytes ? "truncated" : "damaged"));
  }
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail_file(file_->path(), fmt::format("has no tensor '{}'", name));
  const TensorInfo& info = found->second;
  const auto options = at::TensorOptions().dtype(info.dtype);
  if (info.bytes() == 0) return at::empty(info.shape, options);
  const std::byte* data = file_->bytes().data() + data_offset_ + info.begin;
  if (reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(info.dtype) != 0) {
    Tensor copy = at::empty(info.shape, options);
    std::memcpy(copy.data_ptr(), data, info.bytes());
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), info.shape, [keep = file_](void*) mutable { keep.reset(); },
      options);
}

void SafetensorsFile::release(const std::string& name) const {
  const TensorInfo& info = tensors_.at(name);
  file_->release(file_->bytes().subspan(data_offset_ + info.begin, info.bytes()));
}

void write_safetensors(const fs::path& path, const std::vector<TensorPlan>& plan,
                       const std::function<void(const TensorPlan&, const WriteBytes&)>& fill,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const TensorPlan& tensor : plan) {
    std::uint64_t bytes = 0;
    FT_CHECK(checked_bytes(tensor.shape, c10::elementSize(tensor.dtype), bytes), "{}", tensor.name);
    header[tensor.name] = {{"dtype", safetensors_dtype(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data begin on an 8-byte boundary
  write_file_atomically(path, [&](const WriteBytes& write) {
    const std::uint64_t length = text.size();
    write(std::as_bytes(std::span(&length, 1)));
    write(std::as_bytes(std::span(text.data(), text.size())));
    for (const TensorPlan& tensor : plan) {
      std::uint64_t left = 0;
      checked_bytes(tensor.shape, c10::elementSize(tensor.dtype), left);
      fill(tensor, [&](std::span<const std::byte> piece) {
        FT_CHECK(piece.size() <= left, "{}: {} bytes too many", tensor.name, piece.size() - left);
        left -= piece.size();
        write(piece);
      });
      FT_CHECK(left == 0, "{}: {} bytes are missing", tensor.name, left);
    }
  });
}

void write_safetensors(const fs::path& path, const std::vector<TensorPlan>& plan,
                       const std::function<Tensor(const TensorPlan&)>& produce,
                       const std::map<std::string, std::string>& metadata) {
  const auto fill = [&](const TensorPlan& tensor, const WriteBytes& write) {
    const Tensor data = produce(tensor).to(at::kCPU).contiguous();
    FT_CHECK(data.scalar_type() == tensor.dtype && data.sizes().vec() == tensor.shape, "{}",
             tensor.name);
    write({static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
  };
  write_safetensors(path, plan, fill, metadata);
}

void write_safetensors(const fs::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors) {
    plan.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  // Wider types first, as the reference writer orders them: every tensor stays aligned.
  std::stable_sort(plan.begin(), plan.end(), [](const TensorPlan& a, const TensorPlan& b) {
    return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
  });
  write_safetensors(
      path, plan, [&](const TensorPlan& entry) { return tensors.at(entry.name); }, metadata);
}

}  // namespace finetune
