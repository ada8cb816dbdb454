#include "text/rank_file.h"

#include "finetune/base/error.h"
#include "text/bpe.h"
#include "text/charsmap.h"
#include "text/json_tokenizer.h"

#include <charconv>
#include <optional>

namespace finetune {

namespace {

using nlohmann::json;

constexpr std::size_t kLlama3Ranks = 128000, kLlama3Specials = 256, kQwenExtras = 205;

struct RankLine {
  std::string bytes;
  std::int32_t rank = 0;
};

std::optional<RankLine> parse_line(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return std::nullopt;
  auto bytes = decode_base64(line.substr(0, space));
  RankLine result;
  const char* end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data() + space + 1, end, result.rank);
  if (!bytes || bytes->empty() || error != std::errc() || stop != end || result.rank < 0)
    return std::nullopt;
  result.bytes = std::move(*bytes);
  return result;
}

/// Calls `read(line, number)` for every line that is not empty, until it returns false.
template <typename Read>
void for_each_line(std::string_view text, const Read& read) {
  std::size_t number = 0;
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !read(line, number)) return;
  }
}

/// The names of Llama 3's special tokens in the order of their ids; 3.1 gave names to some of the
/// reserved ones.
std::vector<std::string> llama3_specials(bool version_3_1) {
  std::vector<std::string> names = {"<|begin_of_text|>", "<|end_of_text|>"};
  std::size_t reserved = 0;
  const auto reserve_until = [&](std::size_t size) {
    while (names.size() < size)
      names.push_back(fmt::format("<|reserved_special_token_{}|>", reserved++));
  };
  reserve_until(4);
  if (version_3_1) names.push_back("<|finetune_right_pad_id|>");
  reserve_until(6);
  names.insert(names.end(), {"<|start_header_id|>", "<|end_header_id|>"});
  if (version_3_1) names.push_back("<|eom_id|>");
  reserve_until(9);
  names.push_back("<|eot_id|>");
  if (version_3_1) names.push_back("<|python_tag|>");
  reserve_until(kLlama3Specials);
  return names;
}

std::vector<std::string> qwen_specials(bool first_generation) {
  std::vector<std::string> names = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (std::size_t i = 0; first_generation && i < kQwenExtras; ++i)
    names.push_back(fmt::format("<|extra_{}|>", i));
  return names;
}

std::vector<std::pair<std::string, std::int32_t>> read_ranks(std::string_view text,
                                                             const std::string& where) {
  std::vector<std::pair<std::string, std::int32_t>> ranks;
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    auto parsed = parse_line(line);
    if (!parsed) {
      fail(ErrorKind::model,
           "{}:{}: expected a token in base64, a space and its rank; is the file complete?", where,
           number);
    }
    ranks.emplace_back(std::move(parsed->bytes), parsed->rank);
    return true;
  });
  return ranks;
}

}  // namespace

bool is_rank_file(std::string_view text) {
  constexpr std::size_t kLongestLine = 4096;
  bool found = false;
  for_each_line(text.substr(0, kLongestLine), [&](std::string_view line, std::size_t) {
    found = parse_line(line).has_value();
    return false;
  });
  return found;
}

std::unique_ptr<Tokenizer> load_rank_file(const std::filesystem::path& path, std::string_view text,
                                          const TokenizerConfig& config) {
  TokenizerFile file;
  file.where = path.string();
  const auto ranks = read_ranks(text, file.where);
  const bool qwen = config.family.starts_with("qwen");
  if (!qwen && !(config.family.starts_with("llama") && ranks.size() == kLlama3Ranks)) {
    fail(ErrorKind::model,
         "{}: a rank file of {} tokens without its split pattern, which is known for Llama 3 ({} "
         "tokens) and Qwen only; "
         "config.json says model_type '{}'. Use a folder with tokenizer.json",
         file.where, ranks.size(), kLlama3Ranks, config.family);
  }
  file.json = family_stages(qwen ? "qwen2" : "llama3", false);
  const std::vector<std::string> specials =
      qwen ? qwen_specials(config.family == "qwen") : llama3_specials(config.llama3_rope);
  json added = json::array();
  // The folder's own list of added tokens, where it has one, says what the ids are called.
  for (std::size_t i = 0; config.added.empty() && i < specials.size(); ++i) {
    added.push_back({{"id", ranks.size() + i}, {"content", specials[i]}, {"special", true}});
  }
  file.json["added_tokens"] = std::move(added);
  if (!qwen) {
    file.json["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", specials[0]}}}}, {{"Sequence", {{"id", "A"}}}}}},
        {"special_tokens", {{specials[0], {{"ids", {ranks.size()}}}}}}};
  }
  const std::string where = file.where;
  return std::make_unique<JsonTokenizer>(std::move(file), config,
                                         std::make_unique<BpeModel>(ranks, where));
}

}  // namespace finetune
