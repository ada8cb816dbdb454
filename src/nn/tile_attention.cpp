#include "nn/tile_attention.h"

#include "nn/tile_backward.h"
#include "nn/tile_forward.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Fewer pairs of segment and key head leave threads idle: then every query head is a task.
constexpr std::int64_t kFewTasks = 16;

struct Tasks {
  std::vector<Task> all;
  std::vector<bool> partial;  ///< whether a sequence's gradients are added up from partial sums
  std::int64_t partial_rows = 0;

  Tasks(const std::vector<Sequence>& sequences, std::int64_t heads, std::int64_t key_heads) {
    const auto count = static_cast<std::int64_t>(sequences.size());
    const bool split = heads > key_heads && count * key_heads < kFewTasks;
    const std::int64_t each = split ? 1 : heads / key_heads;
    partial.assign(sequences.size(), split);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      if (sequences[s].parent >= 0)
        partial[s] = partial[static_cast<std::size_t>(sequences[s].parent)] = true;
    }
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      for (std::int64_t head = 0; head < heads; head += each) {
        all.push_back({&sequences[s], head, each, partial[s] ? partial_rows : -1});
        if (partial[s]) partial_rows += sequences[s].tiles() * kTileKeys;
      }
    }
  }
};

/// dk or dv of a key head's tokens of one segment, from the partial sums of all that read them.
template <typename T>
void add_partials(const Tasks& tasks, const std::vector<Sequence>& sequences, std::int64_t s,
                  std::int64_t key_head, std::int64_t groups, const Tensor& partial,
                  const Tensor& to) {
  const Sequence& own = sequences[static_cast<std::size_t>(s)];
  const std::int64_t dim = to.size(2);
  std::vector<float> sums(static_cast<std::size_t>(own.length * dim));
  for (const Task& task : tasks.all) {
    if (task.partial_row < 0 || task.first_head / groups != key_head) continue;
    const bool itself = task.sequence == &own;
    if (!itself && task.sequence->parent != s) continue;
    const float* from =
        partial.const_data_ptr<float>() + (task.partial_row + (itself ? own.before : 0)) * dim;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += from[i];
  }
  for (std::int64_t i = 0; i < own.length; ++i) {
    T* row = to.mutable_data_ptr<T>() + (own.begin + i) * to.stride(0) + key_head * to.stride(1);
    narrow(sums.data() + i * dim, dim, row);
  }
}

class TileAttention : public torch::autograd::Function<TileAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& query, const Tensor& key,
                        const Tensor& value, const std::vector<std::int64_t>& starts,
                        const std::vector<std::int64_t>& parents, double scale,
                        std::int64_t window) {
    const Tensor q = tileable(query), k = tileable(key), v = tileable(value);
    const AttentionOptions options{scale, window};
    const auto sequences = sequences_of(Segments(starts, parents));
    const std::int64_t heads = q.size(1);
    const Tensor out = at::empty(q.sizes(), q.options());
    const Tensor lse = at::empty({heads, q.size(0)}, q.options().dtype(at::kFloat));
    with_row_type(q, [&]<typename T>(T) {
      at::parallel_for(0, static_cast<std::int64_t>(sequences.size()) * heads, 1,
                       [&](std::int64_t begin, std::int64_t end) {
                         TileForward<T> pass(q, k, v, options, out, lse);
                         for (std::int64_t i = begin; i < end; ++i)
                           pass.run(sequences[static_cast<std::size_t>(i / heads)], i % heads);
                         end_tile_products<T>();
                       });
    });
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["parents"] = parents;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto starts = ctx->saved_data["starts"].toIntVector();
    const auto parents = ctx->saved_data["parents"].toIntVector();
    const AttentionOptions options{ctx->saved_data["scale"].toDouble(),
                                   ctx->saved_data["window"].toInt()};
    const auto sequences = sequences_of(Segments(starts, parents));
    const Tensor dout = tileable(grads[0]);
    const std::int64_t heads = saved[0].size(1), key_heads = saved[1].size(1),
                       dim = saved[0].size(2);
    const Tasks tasks(sequences, heads, key_heads);
    const auto wide = saved[0].options().dtype(at::kFloat);
    const Gradients to{at::empty(saved[0].sizes(), saved[0].options()),
                       at::empty(saved[1].sizes(), saved[1].options()),
                       at::empty(saved[2].sizes(), saved[2].options()),
                       at::empty({tasks.partial_rows, dim}, wide),
                       at::empty({tasks.partial_rows, dim}, wide)};
    with_row_type(saved[0], [&]<typename T>(T) {
      at::parallel_for(0, static_cast<std::int64_t>(tasks.all.size()), 1,
                       [&](std::int64_t begin, std::int64_t end) {
                         TileBackward<T> pass(
                             {&saved[0], &saved[1], &saved[2], &saved[3], &saved[4]}, dout, options,
                             to);
                         for (std::int64_t i = begin; i < end; ++i)
                           pass.run(tasks.all[static_cast<std::size_t>(i)]);
                         end_tile_products<T>();
                       });
      if (tasks.partial_rows == 0) return;
      at::parallel_for(
          0, static_cast<std::int64_t>(sequences.size()) * key_heads, 1,
          [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              if (!tasks.partial[static_cast<std::size_t>(i / key_heads)]) continue;
              for (const auto& [partial, result] :
                   {std::pair(&to.partial_k, &to.dk), std::pair(&to.partial_v, &to.dv)}) {
                add_partials<T>(tasks, sequences, i / key_heads, i % key_heads, heads / key_heads,
                                *partial, *result);
              }
            }
          });
    });
    return {to.dq, to.dk, to.dv, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

bool has_tile_attention(const Tensor& q, const AttentionOptions& options) {
  if (!q.is_cpu() || options.softcap > 0) return false;
  if (q.scalar_type() == at::kFloat) return has_tile_products<float>();
  return q.scalar_type() == at::kBFloat16 && q.size(2) % 2 == 0 &&
         has_tile_products<at::BFloat16>();
}

Tensor tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                      const AttentionOptions& options) {
  return TileAttention::apply(
      q, k, v, std::vector<std::int64_t>(segments.starts.begin(), segments.starts.end()),
      std::vector<std::int64_t>(segments.parents.begin(), segments.parents.end()), options.scale,
      options.window);
}

}  // namespace finetune
