#include "text/charsmap.h"

#include "finetune/base/error.h"

#include <gtest/gtest.h>

#include <random>

namespace finetune {
namespace {

TEST(Base64, Decodes) {
  EXPECT_EQ(decode_base64("aGVsbG8="), "hello");
  EXPECT_EQ(decode_base64("aGVsbG8"), "hello");
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("a"), std::nullopt);
  EXPECT_EQ(decode_base64("a b="), std::nullopt);
}

TEST(Charsmap, NeverLeavesADamagedTrie) {
  std::mt19937 random(1);
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::uint32_t units = 256 * (1 + random() % 3);
    std::string blob;
    const auto put = [&](std::uint32_t value) {
      for (int shift = 0; shift < 32; shift += 8) blob += static_cast<char>(value >> shift & 0xFF);
    };
    put(units * 4);
    for (std::uint32_t i = 0; i < units; ++i)
      put(random() % 300 == 0 ? static_cast<std::uint32_t>(random()) : i & 0xFF);
    blob += std::string("a\0bc\0", 5);
    try {
      const Charsmap map(blob, "test");
      ++accepted;
      std::string text;
      for (int i = 0; i < 50; ++i) text += static_cast<char>(random());
      map.replacement(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::model);
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(Charsmap, RefusesBlobsThatAreTooShort) {
  EXPECT_THROW(Charsmap("", "test"), Error);
  EXPECT_THROW(Charsmap(std::string("\x10\x00\x00\x00"
                                    "abc",
                                    7),
                        "test"),
               Error);
}

}  // namespace
}  // namespace finetune
