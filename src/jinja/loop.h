#pragma once

#include "jinja/value.h"

#include <functional>

namespace finetune::jinja {

/// The variable `loop`, and the items it goes through. Items that the filter of the loop refuses
/// are passed over, each one asked about only when it is its turn.
class LoopObject : public Instance, public std::enable_shared_from_this<LoopObject> {
 public:
  LoopObject(std::vector<Value> items, std::function<bool(const Value&)> accept);

  /// Moves to the next item; false at the end.
  bool advance();
  /// The loop is over: nothing may be asked of the filter any more.
  void finish() { accept_ = nullptr; }
  const Value& current() const { return accepted_[taken_ - 1]; }

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  std::string type_name() const override { return "LoopContext"; }
  std::string print() const override;

 private:
  bool find_next();
  std::int64_t length();
  Value change(const std::vector<Value>& values);

  std::vector<Value> items_;  ///< not asked about yet, from position_ on
  std::size_t position_ = 0;
  std::function<bool(const Value&)> accept_;
  std::vector<Value> accepted_;
  std::size_t taken_ = 0;  ///< of accepted_
  std::vector<Value> last_change_;
  bool changed_before_ = false;
};

}  // namespace finetune::jinja
