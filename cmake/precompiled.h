// What most files that see torch include, compiled once for all of them. A file still names every
// header it uses: the dev preset builds without this one. Only what most of them use pays: every
// file compiles again what these headers instantiate (CLI11 here cost each file 8 s).
#pragma once

#include "finetune/base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>
