#include "finetune/formats/event_file.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

namespace finetune {
namespace {

/// The lengths that TFRecord tells before each record: length, its check, record, its check.
std::vector<std::uint64_t> record_lengths(const std::string& bytes) {
  std::vector<std::uint64_t> lengths;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    lengths.push_back(length);
    at += sizeof length + 4 + length + 4;
    EXPECT_LE(at, bytes.size());
  }
  return lengths;
}

/// No file of this process can grow beyond `bytes` while one lives: EFBIG, as on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(EventFile, WhatADiskRefusedIsWrittenOnceInTheNextTry) {
  const TemporaryFolder folder;
  EventFile events(folder.path(), 0);
  const auto path = std::filesystem::directory_iterator(folder.path())->path();
  const auto first = read_file(path, ErrorKind::data);
  EXPECT_EQ(record_lengths(first).size(), 1U);  // the version

  events.scalar(1, "train/loss", 2.5);
  events.scalar(1, "train/grad_norm", 0.5);
  {
    const FileLimit limit(first.size() + 10);  // in the middle of a record
    EXPECT_THROW(events.flush(), Error);
    EXPECT_EQ(read_file(path, ErrorKind::data), first);
  }
  events.scalar(2, "train/loss", 2.25);
  events.flush();
  const auto whole = read_file(path, ErrorKind::data);
  EXPECT_EQ(whole.substr(0, first.size()), first);
  EXPECT_EQ(record_lengths(whole).size(), 4U);
  EXPECT_NE(whole.find("train/grad_norm"), std::string::npos);
  events.flush();
  EXPECT_EQ(read_file(path, ErrorKind::data), whole);
}

}  // namespace
}  // namespace finetune
