// What most files that never see torch include, compiled once for all of them; see precompiled.h.
#pragma once

#include "finetune/base/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
