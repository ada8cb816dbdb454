#include "finetune/base/file.h"

#include "support/temporary_folder.h"

#include <gtest/gtest.h>

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
