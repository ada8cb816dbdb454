#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/model/write_model.h"

namespace finetune {

namespace fs = std::filesystem;

namespace {

struct ResizeVerbOptions {
  std::string model, output;
};

void run_resize(const ResizeVerbOptions& options) {
  if (!fs::is_directory(options.model))
    fail(ErrorKind::model, "{}: no such folder; expected a model", options.model);
  check_new_model_folder(options.output);
  const std::int64_t tokens = load_tokenizer(options.model)->vocab_size();
  const VocabularyResize resize = resize_vocabulary(options.model, options.output, tokens);
  write_output(
      "-", fmt::format("embeddings for {} tokens instead of {}; the {} new ones begin as the mean "
                       "of the others\n"
                       "the model is in {}. Train the new rows with modules_to_save: [{}], or "
                       "method: full\n",
                       resize.after, resize.before, resize.after - resize.before, options.output,
                       join(resize.modules, ", ")));
}

}  // namespace

void add_resize_vocab(CLI::App& program) {
  auto options = std::make_shared<ResizeVerbOptions>();
  CLI::App* verb = add_verb(program, "resize-vocab",
                            "Give a model embeddings for tokens that were added to its tokenizer",
                            "finetune resize-vocab --model my-model --output my-larger-model",
                            std::make_shared<CommonOptions>());
  verb->add_option("--model", options->model,
                   "Folder of the model, with the tokenizer that has more tokens")
      ->required()
      ->type_name("DIR");
  verb->add_option("--output", options->output, "Folder to write")->required()->type_name("DIR");
  verb->final_callback([options] { run_resize(*options); });
}

}  // namespace finetune
