#include "finetune/formats/safetensors.h"

#include "fuzz/fuzz.h"

#include <cstring>

namespace {

using namespace finetune;

/// Opens the file and touches every tensor's first and last byte.
void open(const fuzz::Folder& folder, std::string_view content) {
  const auto path = folder.write("model.safetensors", content);
  fuzz::only_errors([&] {
    const SafetensorsFile file(path);
    for (const auto& [name, info] : file.tensors()) {
      const Tensor tensor = file.tensor(name);
      fuzz::promise(tensor.nbytes() == info.bytes(), "a tensor has the bytes its header says");
      if (tensor.nbytes() == 0) continue;
      const auto* bytes = static_cast<const volatile unsigned char*>(tensor.const_data_ptr());
      static_cast<void>(bytes[0] + bytes[tensor.nbytes() - 1]);
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  open(folder, fuzz::text_of(data, size));
  // A changed header mostly has another length: once more with the length that it has now.
  std::string file(fuzz::text_of(data, size));
  const std::size_t end = file.rfind('}');
  if (end == std::string::npos || end < sizeof(std::uint64_t)) return 0;
  const std::uint64_t length = end + 1 - sizeof(std::uint64_t);
  std::memcpy(file.data(), &length, sizeof length);
  open(folder, file);
  return 0;
}
