#include "train/metrics.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

#include <sys/resource.h>

#include <fstream>
#include <sstream>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

MetricsFile::MetricsFile(const fs::path& path, std::int64_t last_step) {
  std::string kept;
  if (last_step >= 0 && fs::exists(path)) {
    std::istringstream lines(read_file(path, ErrorKind::resource));
    for (std::string line; std::getline(lines, line);) {
      const ordered_json object =
          ordered_json::parse(line, nullptr, false);  // a killed process may leave half a line
      if (object.is_object() && object.value("step", std::int64_t{0}) <= last_step)
        kept += line + "\n";
    }
  }
  write_file_atomically(path, kept);
  file_.emplace(path);
}

void MetricsFile::write(const ordered_json& line) { file_->append(line.dump() + "\n"); }

std::uint64_t peak_memory_bytes() {
  // Not getrusage first: its peak begins with that of the process that started this one.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;  // in kB
  }
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts KiB
}

}  // namespace finetune
