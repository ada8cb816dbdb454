#pragma once

#include "nn/rows.h"
#include "nn/softmax_rows.h"
#include "nn/tile_rows.h"
#include "nn/tile_sequence.h"

#include <array>
#include <limits>
#include <tuple>

namespace finetune {

/// One thread's forward pass over some (sequence, query head) pairs.
template <typename T>
class TileForward {
 public:
  TileForward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
              const Tensor& out, const Tensor& lse)
      : q_(q), k_(k), v_(v), options_(options), out_(out), lse_(lse), dim_(q.size(2)) {
    queries_.resize(static_cast<std::size_t>(kTileQueries * dim_));
    sums_.resize(static_cast<std::size_t>(kTileQueries * dim_));
  }

  void run(const Sequence& sequence, std::int64_t head) {
    const std::int64_t key_head = head / (q_.size(1) / k_.size(1));
    if (&sequence != packed_ || key_head != packed_head_) pack(sequence, key_head);
    for (std::int64_t begin = 0; begin < sequence.length; begin += kTileQueries)
      run(sequence, head, begin, QueryBlock(sequence, begin, options_.window));
  }

 private:
  void pack(const Sequence& sequence, std::int64_t key_head) {
    packed_ = &sequence;
    packed_head_ = key_head;
    for (const auto& [x, to, by_column] :
         {std::tuple(&k_, &keys_, true), std::tuple(&v_, &values_, false)}) {
      gather(*x, sequence, key_head, plain_);
      to->resize(plain_.size());
      for (std::int64_t tile = 0; tile < sequence.tiles(); ++tile) {
        const std::int64_t at = tile * kTileKeys * dim_;
        const RowView<T> rows{plain_.data() + at, dim_};
        (by_column ? pair_columns<T> : pair_rows<T>)(rows, kTileKeys, kTileKeys, dim_,
                                                     to->data() + at);
      }
    }
    scores_.resize(static_cast<std::size_t>(kTileQueries * sequence.tiles() * kTileKeys));
    weights_.resize(kPair<T> == 1 ? 0 : scores_.size());
  }

  void run(const Sequence& sequence, std::int64_t head, std::int64_t begin,
           const QueryBlock& block) {
    const std::int64_t width = sequence.tiles() * kTileKeys;
    copy_rows(rows_of<T>(q_, head, sequence.begin + begin), block.count, kTileQueries, dim_,
              queries_.data());
    for (std::int64_t tile = block.first_tile; tile < block.end_tile; ++tile) {
      tile_product(kTileQueries, kTileKeys, dim_, queries_.data(), dim_,
                   keys_.data() + tile * kTileKeys * dim_, false, scores_.data() + tile * kTileKeys,
                   width);
    }
    float* lse = lse_.mutable_data_ptr<float>() + head * lse_.size(1) + sequence.begin + begin;
    std::array<float, kTileQueries> inverse{};
    for (std::int64_t r = 0; r < kTileQueries; ++r)
      inverse[static_cast<std::size_t>(r)] = weigh(block, r, width, lse);
    const T* weights = weights_.data();
    if constexpr (kPair<T> == 1) weights = scores_.data();
    for (std::int64_t tile = block.first_tile; tile < block.end_tile; ++tile) {
      tile_product(kTileQueries, dim_, kTileKeys, weights + tile * kTileKeys, width,
                   values_.data() + tile * kTileKeys * dim_, tile > block.first_tile, sums_.data(),
                   dim_);
    }
    for (std::int64_t r = 0; r < block.count; ++r) {
      float* sum = sums_.data() + r * dim_;
      multiply_tile(sum, inverse[static_cast<std::size_t>(r)], dim_);
      T* to = out_.mutable_data_ptr<T>() + (sequence.begin + begin + r) * out_.stride(0) +
              head * out_.stride(1);
      narrow(sum, dim_, to);
    }
  }

  /// Row r of the scores becomes exp(s - max), 0 for keys that are not seen; returns 1 / its sum.
  float weigh(const QueryBlock& block, std::int64_t r, std::int64_t width, float* lse) {
    const std::int64_t begin = block.first_tile * kTileKeys, end = block.end_tile * kTileKeys;
    float *row = scores_.data() + r * width, result = 0;
    if (r < block.count) {
      const std::int64_t position = block.first + r;
      float* seen = row + QueryBlock::first_key(position, block.window);
      float* later = row + position + 1;
      multiply_tile(seen, static_cast<float>(options_.scale), later - seen);
      std::fill(row + begin, seen, -std::numeric_limits<float>::infinity());
      std::fill(later, row + end, -std::numeric_limits<float>::infinity());
      const auto [sum_log, inverse] = exponentiate(row + begin, end - begin);
      std::fill(row + begin, seen, 0.0F);
      std::fill(later, row + end, 0.0F);
      lse[r] = sum_log;
      result = inverse;
    }
    if constexpr (kPair<T> == 2)
      narrow(row + begin, end - begin, weights_.data() + r * width + begin);
    return result;
  }

  const Tensor &q_, &k_, &v_;
  const AttentionOptions& options_;
  const Tensor &out_, &lse_;
  std::int64_t dim_, packed_head_ = -1;
  const Sequence* packed_ = nullptr;
  std::vector<T> plain_, keys_, values_, queries_, weights_;
  std::vector<float> scores_, sums_;
};

}  // namespace finetune
