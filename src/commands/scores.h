#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// Scores of generated answers, each in [0, 1].
struct GenerationScores {
  double exact_match = 0;  ///< equal after stripping outer white space
  double valid_json =
      0;  ///< an object or array, of the rows whose reference is one (of all rows where none is)
  bool expects_json = false;      ///< some reference is an object or array
  std::int64_t json_rows = 0;  ///< how many rows valid_json is about
};

/// One answer and what it should have been.
struct ScoredAnswer {
  std::string prediction;
  std::string reference;
};

GenerationScores score_answers(const std::vector<ScoredAnswer>& answers);

/// Without the white space (ASCII) around it.
std::string_view strip(std::string_view text);

/// True for the text of one JSON object or array.
bool is_json_container(std::string_view text);

}  // namespace finetune
