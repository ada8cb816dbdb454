#pragma once

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/config/config.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace finetune {

/// A configuration file in a folder of its own, and what comes of it.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) : path_(folder_.path() / "lora.yaml") {
    write_file_atomically(path_, text);
  }

  /// "/tmp/.../lora.yaml"
  std::string name() const { return path_.string(); }
  std::string at_line(int line) const { return name() + ":" + std::to_string(line); }

  Config load(const std::vector<std::string>& overrides = {}) const {
    return load_config({path_, overrides});
  }

 private:
  TemporaryFolder folder_;
  std::filesystem::path path_;
};

inline Config load_text(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return ConfigFile(text).load(overrides);
}

inline Config load_words(const std::vector<std::string>& overrides) {
  return load_config({std::nullopt, overrides});
}

/// The message of the Error(config) that `run` throws; the test fails when there is none.
inline std::string config_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

/// What `run` logs.
inline std::string logged_by(const std::function<void()>& run) {
  ::testing::internal::CaptureStderr();
  run();
  return ::testing::internal::GetCapturedStderr();
}

inline std::map<std::string, std::string> values_of(const Config& config) {
  std::map<std::string, std::string> values;
  for (auto& [key, value] : config_values(config)) values[key] = value;
  return values;
}

#define EXPECT_CONTAINS(text, part) EXPECT_PRED_FORMAT2(::finetune::text_contains, text, part)

inline ::testing::AssertionResult text_contains(const char*, const char*, const std::string& text,
                                                const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "found:    " << text << "\nexpected: ..." << part << "...";
}

}  // namespace finetune
