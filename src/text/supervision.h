#pragma once

#include "finetune/jinja/template.h"
#include "finetune/text/chat_template.h"

#include <string>
#include <vector>

namespace finetune {

/// Which bytes of a rendered conversation are trained, from where the interpreter says they came.
/// `name` is what messages call the template. Throws Error(data) as ChatTemplate::render.
RenderedText supervise(jinja::Rendered rendered, const std::vector<Message>& messages,
                       bool has_generation, const Tokenizer& tokenizer, const std::string& name);

}  // namespace finetune
