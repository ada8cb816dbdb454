#include "train/metrics.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

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

}  // namespace finetune
