#include "train/moment.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

namespace finetune {

namespace {

constexpr std::int64_t kBlock = Blockwise8Bit::kBlock;
static_assert(FlatParameters::kAlignment == kBlock);

std::int64_t blocks_of(std::int64_t count) { return (count + kBlock - 1) / kBlock; }

}  // namespace

Moment::Moment(std::string name, const FlatParameters& parameters, MomentStorage storage)
    : name_(std::move(name)),
      encoded_size_(storage == MomentStorage::float32 ? 0 : parameters.large_size()) {
  const Tensor& all = parameters.values();
  const at::TensorOptions options = all.options().dtype(at::kFloat);
  values_ = at::zeros({all.numel() - encoded_size_}, options);
  if (encoded_size_ == 0) return;
  format_.emplace(storage == MomentStorage::signed_8bit, all.device());
  codes_ = at::zeros({encoded_size_}, options.dtype(at::kByte));
  absmax_ = at::zeros({encoded_size_ / kBlock}, options);
}

Tensor Moment::read(std::int64_t begin, std::int64_t count) const {
  if (begin >= encoded_size_) return values_.narrow(0, begin - encoded_size_, count);
  const std::int64_t blocks = blocks_of(count);
  return format_
      ->decode(codes_.narrow(0, begin, blocks * kBlock), absmax_.narrow(0, begin / kBlock, blocks))
      .narrow(0, 0, count);
}

void Moment::write(std::int64_t begin, const Tensor& moment) {
  if (begin >= encoded_size_) return;  // changed in place
  const std::int64_t blocks = blocks_of(moment.numel());
  format_->encode(at::constant_pad_nd(moment, {0, blocks * kBlock - moment.numel()}),
                  codes_.narrow(0, begin, blocks * kBlock),
                  absmax_.narrow(0, begin / kBlock, blocks));
}

void Moment::add_state(std::map<std::string, Tensor>& state) const {
  if (encoded_size_ > 0) {
    state[name_ + ".codes"] = codes_;
    state[name_ + ".absmax"] = absmax_;
  }
  if (values_.numel() > 0) state[name_] = values_;
}

}  // namespace finetune
