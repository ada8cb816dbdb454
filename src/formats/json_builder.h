#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace finetune {

/// Builds a value from the parser's events (nlohmann::json::sax_parse, which does not recurse).
/// Unlike the library's own parser it refuses a key that an object has twice, and nesting so deep
/// that others would overflow the stack.
class JsonBuilder final : public nlohmann::json_sax<nlohmann::ordered_json> {
 public:
  /// Deepest nesting accepted.
  static constexpr std::size_t kMaxDepth = 200;

  explicit JsonBuilder(nlohmann::ordered_json& root) : root_(root) {}

  /// After a refusal: what was wrong, and roughly at which byte of the text.
  const std::string& problem() const { return problem_; }
  std::size_t offset() const { return offset_; }

  bool null() override { return add(nullptr) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return add(value) != nullptr;
  }
  bool string(string_t& value) override { return add(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(nlohmann::ordered_json::object()); }
  bool start_array(std::size_t) override { return open(nlohmann::ordered_json::array()); }
  bool key(string_t& name) override;
  bool end_object() override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::json::exception& error) override;

 private:
  nlohmann::ordered_json* add(nlohmann::ordered_json value);
  bool open(nlohmann::ordered_json value);

  nlohmann::ordered_json& root_;
  std::vector<nlohmann::ordered_json*> open_;  ///< parents do not change while a child is open
  std::string key_;
  std::string problem_;
  std::size_t offset_ = 0;
};

}  // namespace finetune
