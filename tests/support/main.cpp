#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

// As the program itself: LibTorch's own destructors of statics fail in some CUDA builds.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int code = RUN_ALL_TESTS();
  std::fflush(nullptr);
  std::_Exit(code);
}
