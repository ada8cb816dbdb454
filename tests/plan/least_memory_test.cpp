#include "finetune/plan/least_memory.h"

#include "model/tiny_llama.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

/// The tiny model, and rows of 5 and 9 tokens.
class LeastMemoryTest : public ::testing::Test {
 protected:
  LeastMemoryTest() {
    tiny_llama::write(folder_.path(), tiny_llama::config(),
                      tiny_llama::weights(tiny_llama::config()));
    config_.model_name_or_path = folder_.path().string();
    config_.dtype = Dtype::float32;
    config_.lora_rank = 4;
    for (const std::size_t length : {5, 9}) {
      Example& example = data_.examples.emplace_back();
      example.input_ids.assign(length, 3);
      example.supervised.assign(length, 1);
    }
  }

  std::uint64_t part(const std::string& name) {
    for (const auto& [part, bytes] : least_memory(config_, data_).components)
      if (part == name) return bytes;
    ADD_FAILURE() << "no part " << name;
    return 0;
  }

  TemporaryFolder folder_;
  Config config_;
  Dataset data_;
};

constexpr std::uint64_t kParameters = 3060, kHidden = 12, kLongest = 9;
// Values with the gaps behind each parameter: 16 low-rank matrices in a place of 256 each.
constexpr std::uint64_t kAdapter = 16 * 256, kFull = 21 * 256;

TEST_F(LeastMemoryTest, CountsAnAdapter) {
  EXPECT_EQ(part("weights"), 0u);  // mapped
  EXPECT_EQ(part("trained values"), 4 * kAdapter);
  EXPECT_EQ(part("gradients"), 4 * kAdapter);
  EXPECT_EQ(part("optimizer"), 8 * kAdapter);
  EXPECT_EQ(part("activations"), 2 * kLongest * kHidden * 4);
  config_.dtype = Dtype::bfloat16;
  EXPECT_EQ(part("weights"), 2 * kParameters);
  config_.layers_to_transform = {1};
  EXPECT_EQ(part("activations"), kLongest * kHidden * 2);
  EXPECT_EQ(part("trained values"), 2 * kAdapter);
}

TEST_F(LeastMemoryTest, CountsFullTraining) {
  config_.method = Method::full;
  EXPECT_EQ(part("trained values"), 4 * kFull);
  EXPECT_EQ(part("optimizer"), 8 * kFull);
  config_.optim = Optim::adamw_8bit;
  EXPECT_EQ(part("optimizer"), 8 * kFull);  // moments of parameters this small stay in float32
  config_.optim = Optim::sgd;
  EXPECT_EQ(part("optimizer"), 0u);
  config_.optimizer_in_backward = true;
  EXPECT_EQ(part("gradients"), 0u);
}

TEST_F(LeastMemoryTest, RefusesOnlyWhatCannotFit) {
  config_.method = Method::full;
  const LeastMemory least = least_memory(config_, data_);
  MemoryLimits limits;
  limits.available_bytes = least.total();
  require_memory(config_, least, limits);
  limits.group_bytes = least.total() - 1;
  const std::string text =
      tiny_llama::error_of([&] { require_memory(config_, least, limits); }, ErrorKind::resource);
  EXPECT_TRUE(tiny_llama::contains(text, "memory limit of this container")) << text;
  EXPECT_TRUE(tiny_llama::contains(text, "method: lora")) << text;
  limits.swap_bytes = 1;
  require_memory(config_, least, limits);
}

}  // namespace
}  // namespace finetune
