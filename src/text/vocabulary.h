#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The tokens of a model: content -> id and id -> content. Open addressing over one array, for a
/// large tokenizer.json asks it half a million times while it is loaded.
class Vocabulary {
 public:
  /// Ids from 0 to below this; a damaged id must not become an allocation.
  static constexpr std::int64_t kMaxIds = std::int64_t{1} << 22;

  /// Room for `tokens` of them.
  void reserve(std::size_t tokens);
  /// The last id given for a content wins. `where` begins the message of the Error(model) for an id
  /// out of range.
  void put(std::string_view content, std::int64_t id, const std::string& where);

  std::optional<std::int32_t> find(std::string_view content) const;
  /// Null for an id without a token.
  const std::string_view* content(std::int32_t id) const;
  /// One more than the largest id.
  std::int32_t id_limit() const { return static_cast<std::int32_t>(contents_.size()); }
  /// Number of different contents.
  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::int32_t id = -1;  ///< -1: free
    std::string_view content;
  };
  Slot& place(std::string_view content, std::uint32_t hash);
  std::string_view keep(std::string_view content);
  void grow(std::size_t slots);

  std::deque<std::string>
      blocks_;  ///< the bytes of the contents; a deque keeps them where they are
  std::vector<Slot> slots_;
  std::vector<std::string_view> contents_;  ///< by id; without data: no token
  std::size_t size_ = 0;
};

}  // namespace finetune
