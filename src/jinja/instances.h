#pragma once

#include "jinja/value.h"

#include <functional>

namespace finetune::jinja {

using Callable = std::function<Value(Interpreter&, const Arguments&)>;

/// A function as a value; `depth` is that of the values it holds.
Value make_callable(Interpreter& interpreter, std::string name, Callable callable,
                    std::int32_t depth = 0);

}  // namespace finetune::jinja
