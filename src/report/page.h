#pragma once

#include <string_view>

namespace finetune {

/// page.html as it was when the program was built. `{{report}}` in it is where the JSON goes.
std::string_view report_page_template();

}  // namespace finetune
