#include "plan/mapped_model.h"

#include <gtest/gtest.h>

namespace finetune {
namespace {

TEST(OptimizerBytes, EightBitMomentsOfLargeParametersAlone) {
  const TrainedCount count{8192 + 100, 8192 + 256, 8192};
  Config config;
  config.optim = Optim::adamw;
  EXPECT_EQ(optimizer_bytes(config, count), 2U * 4 * (8192 + 256));
  config.optim = Optim::adamw_8bit;  // a byte each, a scale for 256; the small one in float32
  EXPECT_EQ(optimizer_bytes(config, count), 2U * (8192 + 4 * 32 + 4 * 256));
  config.optim = Optim::lion;
  EXPECT_EQ(optimizer_bytes(config, count), 4U * (8192 + 256));
}

}  // namespace
}  // namespace finetune
