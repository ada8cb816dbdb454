#pragma once

#include "nn/rows.h"
#include "nn/tile_rows.h"
#include "nn/tile_sequence.h"

#include <array>

namespace finetune {

/// The backward pass of query heads that read one key head of a segment.
struct Task {
  const Sequence* sequence;
  std::int64_t first_head, heads;
  std::int64_t partial_row;  ///< of their rows among the partial sums; -1: they are whole
};

struct Gradients {
  Tensor dq, dk, dv;
  Tensor partial_k, partial_v;  ///< [rows, D] float32
};

/// One thread's backward pass over some tasks.
template <typename T>
class TileBackward {
 public:
  TileBackward(const std::array<const Tensor*, 5>& saved, const Tensor& dout,
               const AttentionOptions& options, const Gradients& to)
      : q_(*saved[0]),
        k_(*saved[1]),
        v_(*saved[2]),
        out_(*saved[3]),
        lse_(*saved[4]),
        dout_(dout),
        options_(options),
        to_(to),
        dim_(q_.size(2)),
        wide_out_(dim_),
        wide_dout_(dim_) {
    for (auto* block : {&q_columns_, &q_rows_, &dout_columns_, &dout_rows_})
      block->resize(static_cast<std::size_t>(kTileQueries * dim_));
    dq_.resize(static_cast<std::size_t>(kTileQueries * dim_));
  }

  void run(const Task& task) {
    const Sequence& sequence = *task.sequence;
    const std::int64_t key_head = task.first_head / (q_.size(1) / k_.size(1));
    pack(sequence, key_head);
    const std::size_t size = keys_.size();
    float *dk = nullptr, *dv = nullptr;
    if (task.partial_row >= 0) {
      dk = to_.partial_k.mutable_data_ptr<float>() + task.partial_row * dim_;
      dv = to_.partial_v.mutable_data_ptr<float>() + task.partial_row * dim_;
    } else {
      for (auto* sums : {&dk_, &dv_}) sums->resize(size);
      dk = dk_.data();
      dv = dv_.data();
    }
    std::fill(dk, dk + size, 0.0F);
    std::fill(dv, dv + size, 0.0F);
    for (std::int64_t head = task.first_head; head < task.first_head + task.heads; ++head) {
      for (std::int64_t begin = 0; begin < sequence.length; begin += kTileQueries)
        run(sequence, head, begin, QueryBlock(sequence, begin, options_.window), dk, dv);
    }
    if (task.partial_row >= 0) return;
    store(dk, sequence, key_head, to_.dk);
    store(dv, sequence, key_head, to_.dv);
  }

 private:
  void pack(const Sequence& sequence, std::int64_t key_head) {
    gather(k_, sequence, key_head, keys_);
    gather(v_, sequence, key_head, values_);
    keys_by_dim_.resize(keys_.size());
    for (std::int64_t tile = 0; tile < sequence.tiles(); ++tile) {
      const std::int64_t at = tile * kTileKeys * dim_;
      transpose_rows(RowView<T>{keys_.data() + at, dim_}, kTileKeys, kTileKeys, dim_,
                     keys_by_dim_.data() + at);
    }
  }

  void store(const float* sums, const Sequence& sequence, std::int64_t key_head, const Tensor& to) {
    for (std::int64_t i = 0; i < sequence.length; ++i) {
      T* row =
          to.mutable_data_ptr<T>() + (sequence.begin + i) * to.stride(0) + key_head * to.stride(1);
      narrow(sums + i * dim_, dim_, row);
    }
  }

  void pack_queries(const Sequence& sequence, std::int64_t head, std::int64_t begin,
                    const QueryBlock& block) {
    const std::int64_t first = sequence.begin + begin;
    const RowView<T> q = rows_of<T>(q_, head, first), dout = rows_of<T>(dout_, head, first),
                     out = rows_of<T>(out_, head, first);
    pair_columns(q, block.count, kTileQueries, dim_, q_columns_.data());
    pair_rows(q, block.count, kTileQueries, dim_, q_rows_.data());
    pair_columns(dout, block.count, kTileQueries, dim_, dout_columns_.data());
    pair_rows(dout, block.count, kTileQueries, dim_, dout_rows_.data());
    const float* sum_logs = lse_.const_data_ptr<float>() + head * lse_.size(1) + first;
    for (std::int64_t r = 0; r < kTileQueries; ++r) {
      const auto at = static_cast<std::size_t>(r);
      lse_block_[at] = r < block.count ? sum_logs[r] : 0;  // what has no query adds p times 0
      delta_[at] = r < block.count ? sum_of_products(wide_out_.read(out.row(r)),
                                                     wide_dout_.read(dout.row(r)), dim_)
                                   : 0;
    }
  }

  void run(const Sequence& sequence, std::int64_t head, std::int64_t begin, const QueryBlock& block,
           float* dk, float* dv) {
    pack_queries(sequence, head, begin, block);
    for (std::int64_t tile = block.first_tile; tile < block.end_tile; ++tile) {
      const std::int64_t at = tile * kTileKeys * dim_;
      tile_product(kTileKeys, kTileQueries, dim_, keys_.data() + at, dim_, q_columns_.data(), false,
                   p_.data(), kTileQueries);
      tile_product(kTileKeys, kTileQueries, dim_, values_.data() + at, dim_, dout_columns_.data(),
                   false, ds_.data(), kTileQueries);
      tile_gradients(p_.data(), ds_.data(), lse_block_.data(), delta_.data(),
                     static_cast<float>(options_.scale));
      if (!block.sees_all(tile)) hide(block, tile);
      const auto [p, ds, ds_pairs] = narrowed();
      tile_product(kTileKeys, dim_, kTileQueries, p, kTileQueries, dout_rows_.data(), true, dv + at,
                   dim_);
      tile_product(kTileKeys, dim_, kTileQueries, ds, kTileQueries, q_rows_.data(), true, dk + at,
                   dim_);
      tile_product(dim_, kTileQueries, kTileKeys, keys_by_dim_.data() + at, kTileKeys, ds_pairs,
                   tile > block.first_tile, dq_.data(), kTileQueries);
    }
    for (std::int64_t r = 0; r < block.count; ++r) {
      T* to = to_.dq.mutable_data_ptr<T>() + (sequence.begin + begin + r) * to_.dq.stride(0) +
              head * to_.dq.stride(1);
      for (std::int64_t d = 0; d < dim_; ++d)
        to[d] = static_cast<T>(dq_[static_cast<std::size_t>(d * kTileQueries + r)]);
    }
  }

  /// Zeros for the keys of a tile that a query does not see.
  void hide(const QueryBlock& block, std::int64_t tile) {
    for (std::int64_t j = 0; j < kTileKeys; ++j) {
      const std::int64_t key = tile * kTileKeys + j;
      const std::int64_t first = std::clamp<std::int64_t>(key - block.first, 0, kTileQueries);
      const std::int64_t end =
          block.window > 0
              ? std::clamp<std::int64_t>(key + block.window - block.first, first, kTileQueries)
              : kTileQueries;
      for (float* row : {p_.data() + j * kTileQueries, ds_.data() + j * kTileQueries}) {
        std::fill(row, row + first, 0.0F);
        std::fill(row + end, row + kTileQueries, 0.0F);
      }
    }
  }

  /// p^T and ds^T as first factors, and ds^T as a second one.
  std::array<const T*, 3> narrowed() {
    if constexpr (kPair<T> == 1) {
      return {p_.data(), ds_.data(), ds_.data()};
    } else {
      narrow(p_.data(), kTile, p_narrow_.data());
      narrow(ds_.data(), kTile, ds_narrow_.data());
      pair_rows(RowView<T>{ds_narrow_.data(), kTileQueries}, kTileKeys, kTileKeys, kTileQueries,
                ds_pairs_.data());
      return {p_narrow_.data(), ds_narrow_.data(), ds_pairs_.data()};
    }
  }

  const Tensor &q_, &k_, &v_, &out_, &lse_, &dout_;
  const AttentionOptions& options_;
  const Gradients& to_;
  std::int64_t dim_;
  WideRow<T> wide_out_, wide_dout_;
  std::vector<T> keys_, values_, keys_by_dim_;
  std::vector<T> q_columns_, q_rows_, dout_columns_, dout_rows_;
  std::vector<float> dq_, dk_, dv_;
  std::array<float, kTileQueries> lse_block_{}, delta_{};
  std::array<float, kTile> p_{}, ds_{};
  std::array<T, kTile> p_narrow_{}, ds_narrow_{}, ds_pairs_{};
};

}  // namespace finetune
