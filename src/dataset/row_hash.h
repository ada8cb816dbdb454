#pragma once

#include "finetune/dataset/example.h"

#include <xxhash.h>

#include <memory>
#include <string>
#include <string_view>

namespace finetune {

/// content_hash of a text that is told piece by piece, and need not be in memory as a whole.
class StreamHash {
 public:
  StreamHash();
  void add(std::string_view piece);
  /// Of all pieces so far, as content_hash writes it.
  std::string hex() const;

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

/// Of the tokens of a row and which of them are learned; rows that say the same have the same.
XXH128_hash_t row_hash(const Example& example);

}  // namespace finetune
