// A program of someone else: built against the installed package.
#include <finetune/base/error.h>
#include <finetune/base/tensor.h>
#include <finetune/base/text.h>

#include <cstdio>

int main() {
  std::puts(finetune::format_count(1234567).c_str());
  return finetune::Tensor().defined() ? 1 : 0;
}
