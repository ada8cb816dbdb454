#include "finetune/base/file.h"

#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace finetune {
namespace {

TEST(WriteFileAtomically, KeepsTheOldFileWhenFillingFails) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.txt";
  write_file_atomically(path, "old");
  EXPECT_THROW(write_file_atomically(path,
                                     [](const WriteBytes& write) {
                                       const std::string half = "ne";
                                       write(std::as_bytes(std::span(half.data(), half.size())));
                                       fail(ErrorKind::resource, "disk full");
                                     }),
               Error);
  EXPECT_EQ(read_file(path, ErrorKind::data), "old");
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
}

/// As four trainings that fill one cache: nobody sees a file of two writers, or half of one.
TEST(WriteFileAtomically, IsWholeWithManyWriters) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "shared";
  constexpr std::size_t kBytes = 200'000;
  write_file_atomically(path, std::string(kBytes, 'a'));
  std::atomic<int> writing = 4, failures = 0;
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, letter = static_cast<char>('a' + writer)] {
      for (int i = 0; i < 50; ++i) {
        try {
          write_file_atomically(path,
                                std::string(kBytes - static_cast<std::size_t>(letter), letter));
        } catch (const Error&) {
          ++failures;
        }
      }
      --writing;
    });
  }
  int reads = 0;
  for (; writing > 0; ++reads) {
    const std::string content = read_file(path, ErrorKind::data);
    ASSERT_GE(content.size(), kBytes - 'd');
    ASSERT_EQ(content, std::string(content.size(), content.front()));
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(failures, 0);
  EXPECT_GT(reads, 10);
}

TEST(ReadFile, NamesAMissingFileAndRefusesAFolder) {
  const TemporaryFolder folder;
  try {
    read_file(folder.path() / "absent", ErrorKind::data);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos);
  }
  EXPECT_THROW(read_file(folder.path(), ErrorKind::model), Error);
}

TEST(ContentHash, DependsOnEveryByte) {
  EXPECT_EQ(content_hash("abc").size(), 32u);
  EXPECT_NE(content_hash("abc"), content_hash("abd"));
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "x", "abc");
  EXPECT_EQ(file_hash(folder.path() / "x", ErrorKind::data), content_hash("abc"));
}

}  // namespace
}  // namespace finetune
