#include "finetune/formats/safetensors.h"

#include "support/temporary_folder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstring>

namespace finetune {
namespace {

void write_raw(const std::filesystem::path& path, const std::string& header,
               std::size_t data_bytes) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  write_file_atomically(path, bytes + header + std::string(data_bytes, '\1'));
}

TEST(Safetensors, ReadsWhatItWrote) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  const Tensor a = at::arange(6, at::kFloat).view({2, 3});
  const Tensor b = at::arange(3, at::kFloat).to(at::kBFloat16);
  write_safetensors(path, {{"a", a}, {"b", b}}, {{"format", "pt"}});
  const SafetensorsFile file(path);
  EXPECT_TRUE(at::equal(file.tensor("a"), a));
  EXPECT_TRUE(at::equal(file.tensor("b"), b));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_THROW(file.tensor("c"), Error);
}

struct BadFile {
  const char* name;
  std::string header;
  std::size_t data_bytes;
  const char* expected;  // part of the message
};

class BadSafetensors : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, IsRefusedWithTheReason) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "bad.safetensors";
  write_raw(path, GetParam().header, GetParam().data_bytes);
  try {
    const SafetensorsFile file(path);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 4);
    EXPECT_NE(std::string(error.what()).find(GetParam().expected), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("bad.safetensors"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSafetensors,
    ::testing::Values(
        BadFile{"not_json", "{oops", 0, "not a JSON object"},
        BadFile{"truncated", R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 8,
                "truncated"},
        BadFile{"extra", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "damaged"},
        BadFile{"hole", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "hole"},
        BadFile{
            "overlap",
            R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4, "overlap"},
        BadFile{"shape", R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}})", 4,
                "does not fill"},
        BadFile{"overflow",
                R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
                "does not fill"},
        BadFile{"negative", R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
                "does not fill"},
        BadFile{"dtype", R"({"a":{"dtype":"F3","shape":[1],"data_offsets":[0,4]}})", 4,
                "type \"F3\""},
        BadFile{"no_offsets", R"({"a":{"dtype":"F32","shape":[1]}})", 4, "not valid"}),
    [](const auto& info) { return info.param.name; });

TEST(Safetensors, LyingLengthAndLfsPointer) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.safetensors";
  write_file_atomically(path, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  EXPECT_THROW(SafetensorsFile{path}, Error);
  write_file_atomically(path,
                        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  try {
    SafetensorsFile file(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("git lfs pull"), std::string::npos);
  }
}

TEST(WeightFolder, ReadsShardsAndNamesWhatIsMissing) {
  const TemporaryFolder folder;
  const Tensor a = at::arange(4, at::kFloat);
  write_safetensors(folder.path() / "model-1.safetensors", {{"a", a}}, {});
  const auto index = folder.path() / "model.safetensors.index.json";
  write_file_atomically(index, R"({"weight_map":{"a":"model-1.safetensors"}})");
  EXPECT_TRUE(at::equal(WeightFolder(folder.path()).tensor("a"), a));
  for (const char* bad : {R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})",
                          R"({"weight_map":{"a":"model-1.safetensors","b":"model-1.safetensors"}})",
                          R"({"weight_map":{"a":"../model-1.safetensors"}})", R"({})"}) {
    write_file_atomically(index, bad);
    EXPECT_THROW(WeightFolder{folder.path()}, Error) << bad;
  }
}

TEST(WeightFolder, ExplainsPytorchBin) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "pytorch_model.bin", "x");
  try {
    WeightFolder weights(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("save_pretrained"), std::string::npos);
  }
}

}  // namespace
}  // namespace finetune
