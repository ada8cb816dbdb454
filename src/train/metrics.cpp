#include "train/metrics.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

#include <sstream>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

MetricsFile::MetricsFile(const fs::path& path, std::int64_t last_step) : path_(path) {
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
  file_.open(path, std::ios::app);
  if (!file_) fail(ErrorKind::resource, "{}: cannot be opened for writing", path.string());
}

void MetricsFile::write(const ordered_json& line) {
  file_ << line.dump() << '\n' << std::flush;
  if (!file_) fail(ErrorKind::resource, "{}: cannot be written; is the disk full?", path_.string());
}

}  // namespace finetune
