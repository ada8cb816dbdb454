// What most files that see torch include, compiled once for all of them. A file still names every
// header it uses: the dev preset builds without this one.
#pragma once

#include "finetune/base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
