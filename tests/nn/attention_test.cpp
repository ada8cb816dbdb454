#include "finetune/nn/attention.h"

#include "finetune/base/error.h"
#include "nn/reference.h"

#include <cmath>

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

using Starts = std::vector<std::int64_t>;

/// One sequence after the other, one head after the other, from the definition.
Tensor plain_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Starts& starts,
                       const AttentionOptions& options) {
  std::vector<Tensor> sequences;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t begin = starts[s], length = starts[s + 1] - begin;
    Tensor hidden = at::ones({length, length}, at::kBool).triu(1);
    if (options.window > 0)
      hidden = hidden.logical_or(at::ones({length, length}, at::kBool).tril(-options.window));
    std::vector<Tensor> heads;
    for (std::int64_t h = 0; h < q.size(1); ++h) {
      const std::int64_t key_head = h / (q.size(1) / k.size(1));
      const auto part = [&](const Tensor& x, std::int64_t head) {
        return x.slice(0, begin, begin + length).select(1, head);
      };
      Tensor scores = part(q, h).matmul(part(k, key_head).t()) * options.scale;
      if (options.softcap > 0) scores = (scores / options.softcap).tanh() * options.softcap;
      heads.push_back(scores.masked_fill(hidden, -INFINITY).softmax(-1).matmul(part(v, key_head)));
    }
    sequences.push_back(at::stack(heads, 1));
  }
  return at::cat(sequences, 0);
}

struct Shape {
  const char* name;
  std::int64_t heads, key_heads, head_dim;
  Starts starts;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }

class AttentionShapes : public ::testing::TestWithParam<Shape> {
 protected:
  Tensor input(std::int64_t heads, std::uint64_t seed, at::ScalarType dtype) const {
    return leaf(
        reference::random({GetParam().starts.back(), heads, GetParam().head_dim}, seed, dtype));
  }

  /// Forward and all gradients beside the reference in float64.
  void check(at::ScalarType dtype, double tolerance) const {
    const Shape& shape = GetParam();
    const std::vector<Tensor> in = {input(shape.heads, 1, dtype), input(shape.key_heads, 2, dtype),
                                    input(shape.key_heads, 3, dtype)};
    std::vector<Tensor> wide;
    for (const Tensor& x : in) wide.push_back(leaf(x.to(at::kDouble)));
    const Tensor y = attention(in[0], in[1], in[2], shape.starts, {0.3});
    const Tensor expected = plain_attention(wide[0], wide[1], wide[2], shape.starts, {0.3});
    EXPECT_EQ(y.scalar_type(), dtype);
    expect_close(y, expected, tolerance, "y");
    const Tensor dy = reference::random(y.sizes().vec(), 4, dtype);
    const auto grads = gradients(y, dy, in),
               expected_grads = gradients(expected, dy.to(at::kDouble), wide);
    const char* names[] = {"dq", "dk", "dv"};
    for (int i = 0; i < 3; ++i) expect_close(grads[i], expected_grads[i], tolerance, names[i]);
  }
};

INSTANTIATE_TEST_SUITE_P(All, AttentionShapes,
                         ::testing::Values(Shape{"one_sequence", 2, 2, 4, {0, 9}},
                                           Shape{"one_token", 4, 2, 4, {0, 1}},
                                           Shape{"ragged", 2, 2, 4, {0, 1, 6, 7, 15}},
                                           Shape{"grouped", 6, 2, 8, {0, 1, 6, 7, 15}},
                                           Shape{"one_key_head", 4, 1, 6, {0, 3, 4, 11}},
                                           Shape{"longer_than_tiles", 4, 2, 8, {0, 700, 703}},
                                           Shape{"one_past_a_tile", 2, 1, 64, {0, 33, 97, 161}},
                                           Shape{"wide_heads", 2, 1, 96, {0, 31, 65}},
                                           Shape{"many", 12, 6, 16, {0, 64, 65, 129, 129 + 32}}),
                         [](const auto& shape) { return shape.param.name; });

TEST_P(AttentionShapes, MatchesTheReference) { check(at::kDouble, reference::kDoubleTolerance); }
TEST_P(AttentionShapes, MatchesTheReferenceInFloat) {
  check(at::kFloat, reference::kFloatTolerance);
}
TEST_P(AttentionShapes, MatchesTheReferenceInBfloat16) {
  check(at::kBFloat16, reference::kBfloat16Tolerance);
}

TEST(Attention, SequenceAloneIsSequenceInCompany) {
  const Starts starts = {0, 5, 6, 40};
  const Tensor q = leaf(reference::random({40, 4, 8}, 1, at::kFloat)),
               k = leaf(reference::random({40, 2, 8}, 2, at::kFloat));
  const Tensor v = leaf(reference::random({40, 2, 8}, 3, at::kFloat)),
               dy = reference::random({40, 4, 8}, 4, at::kFloat);
  const Tensor together = attention(q, k, v, starts, {0.3});
  const auto grads = gradients(together, dy, {q, k, v});
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const auto part = [&](const Tensor& x) {
      return x.detach().slice(0, starts[s], starts[s + 1]);
    };
    const std::vector<Tensor> in = {leaf(part(q)), leaf(part(k)), leaf(part(v))};
    const Tensor alone =
        attention(in[0], in[1], in[2], Starts{0, starts[s + 1] - starts[s]}, {0.3});
    EXPECT_TRUE(at::equal(alone.detach(), part(together))) << s;
    const auto alone_grads = gradients(alone, part(dy), in);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(alone_grads[i], part(grads[i]))) << s;
  }
}

void check_views(at::ScalarType dtype, double tolerance) {
  const Starts starts = {0, 4, 12};
  const Tensor fused = leaf(reference::random({12, 8, 6}, 1, dtype)),
               dy = reference::random({4, 12, 6}, 2, dtype).transpose(0, 1);
  const Tensor wide = leaf(fused.detach().to(at::kDouble));
  const auto part = [](const Tensor& x, std::int64_t begin, std::int64_t end) {
    return x.slice(1, begin, end);
  };
  const Tensor y = attention(part(fused, 0, 4), part(fused, 4, 6), part(fused, 6, 8), starts,
                             {0.3}),
               expected = plain_attention(part(wide, 0, 4), part(wide, 4, 6), part(wide, 6, 8),
                                          starts, {0.3});
  expect_close(y, expected, tolerance, "y");
  expect_close(gradients(y, dy, {fused})[0], gradients(expected, dy.to(at::kDouble), {wide})[0],
               tolerance, "dx");
}

TEST(Attention, ReadsViewsOfAFusedProjection) {
  check_views(at::kDouble, reference::kDoubleTolerance);
  check_views(at::kFloat, reference::kFloatTolerance);
  check_views(at::kBFloat16, 3e-2);
}

TEST(Attention, GradientOfASum) {
  const Starts starts = {0, 4, 12};
  const Tensor q = leaf(reference::random({12, 4, 6}, 1)),
               k = leaf(reference::random({12, 2, 6}, 2));
  const Tensor v = leaf(reference::random({12, 2, 6}, 3));
  const Tensor y = attention(q, k, v, starts, {0.3}).sum(),
               expected = plain_attention(q, k, v, starts, {0.3}).sum();
  const auto grads = gradients(y, at::ones_like(y), {q, k, v}),
             expected_grads = gradients(expected, at::ones_like(y), {q, k, v});
  for (std::size_t i = 0; i < 3; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
}

TEST(Attention, LargeScoresStayFinite) {
  const Tensor q = leaf(at::full({4, 1, 2}, 300.0, at::kFloat)),
               k = leaf(reference::random({4, 1, 2}, 1, at::kFloat).mul(300.0));
  const Tensor v = leaf(reference::random({4, 1, 2}, 2, at::kFloat));
  const Tensor y = attention(q, k, v, Starts{0, 4}, {1.0});
  expect_close(
      y, plain_attention(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), {0, 4}, {1.0}),
      reference::kFloatTolerance, "y");
  for (const Tensor& grad : gradients(y, at::ones_like(y), {q, k, v}))
    EXPECT_TRUE(grad.isfinite().all().item<bool>());
}

/// Feeds sequences to the cache: first `prompts[s]` tokens each, then one token a pass.
class CachedRun {
 public:
  CachedRun(Tensor q, Tensor k, Tensor v, Starts starts, AttentionOptions options = {0.3})
      : q_(std::move(q)),
        k_(std::move(k)),
        v_(std::move(v)),
        starts_(std::move(starts)),
        options_(options) {
    layer_.keys.resize(starts_.size() - 1);
    layer_.values.resize(starts_.size() - 1);
    lengths_.assign(starts_.size() - 1, 0);
  }

  /// The rows of the result for `counts[s]` new tokens of each sequence, with their places in the
  /// full stream.
  std::pair<Tensor, Tensor> pass(const Starts& counts) {
    std::vector<std::int64_t> rows;
    Starts starts = {0};
    for (std::size_t s = 0; s < counts.size(); ++s) {
      for (std::int64_t i = 0; i < counts[s]; ++i) rows.push_back(starts_[s] + lengths_[s] + i);
      starts.push_back(static_cast<std::int64_t>(rows.size()));
    }
    const Tensor places = at::tensor(rows, at::kLong);
    const auto take = [&](const Tensor& x) { return x.index_select(0, places); };
    const Tensor y =
        cached_attention(take(q_), take(k_), take(v_), starts, options_, layer_, lengths_);
    for (std::size_t s = 0; s < counts.size(); ++s) lengths_[s] += counts[s];
    return {y, places};
  }

 private:
  Tensor q_, k_, v_;
  Starts starts_;
  AttentionOptions options_;
  LayerCache layer_;
  std::vector<std::int64_t> lengths_;
};

TEST(CachedAttention, EqualsTheFullPass) {
  const Starts starts = {0, 80, 160, 240}, prompts = {1, 7, 3};
  const Tensor q = reference::random({240, 4, 8}, 1), k = reference::random({240, 2, 8}, 2),
               v = reference::random({240, 2, 8}, 3);
  const Tensor full = plain_attention(q, k, v, starts, {0.3});
  CachedRun run(q, k, v, starts);
  for (int i = 0; i < 72; ++i) {  // past the room of the first reservation
    const auto [y, places] = run.pass(i == 0 ? prompts : Starts{1, 1, 1});
    expect_close(y, full.index_select(0, places), reference::kDoubleTolerance,
                 "pass " + std::to_string(i));
  }
}

/// The result, and the gradients of all inputs, beside those of the float64 reference.
void expect_same_pass(const Tensor& y, const Tensor& expected, const Tensor& dy,
                      const std::vector<Tensor>& in, const std::vector<Tensor>& wide,
                      double tolerance, const std::string& name) {
  expect_close(y, expected, tolerance, name);
  const auto grads = gradients(y, dy, in),
             expected_grads = gradients(expected, dy.to(at::kDouble), wide);
  for (std::size_t i = 0; i < in.size(); ++i)
    expect_close(grads[i], expected_grads[i], tolerance, name);
}

void check_options(const AttentionOptions& options, at::ScalarType dtype, double tolerance) {
  const Starts starts = {0, 1, 30, 320};
  const Tensor q = leaf(reference::random({320, 4, 8}, 1, dtype)),
               k = leaf(reference::random({320, 2, 8}, 2, dtype)),
               v = leaf(reference::random({320, 2, 8}, 3, dtype)),
               dy = reference::random({320, 4, 8}, 4, dtype);
  std::vector<Tensor> wide;
  for (const Tensor& x : {q, k, v}) wide.push_back(leaf(x.detach().to(at::kDouble)));
  const Tensor y = attention(q, k, v, starts, options),
               expected = plain_attention(wide[0], wide[1], wide[2], starts, options);
  const std::string name =
      fmt::format("window {}, softcap {}, {}", options.window, options.softcap, toString(dtype));
  expect_same_pass(y, expected, dy, {q, k, v}, wide, tolerance, name);
}

/// Windows shorter and longer than a block of queries, soft caps, and both, on rows below and above
/// them.
TEST(Attention, WindowAndSoftcapMatchTheDefinition) {
  for (const AttentionOptions& options : std::vector<AttentionOptions>{
           {0.3, 7, 0.0}, {0.3, 130, 0.0}, {0.3, 0, 1.5}, {0.3, 20, 1.5}, {0.3, 1, 0.0}}) {
    check_options(options, at::kDouble, reference::kDoubleTolerance);
    check_options(options, at::kFloat, reference::kFloatTolerance);
  }
}

TEST(BlockAttention, HalfTypesStayNearTheDefinition) {
  const Starts starts = {0, 200};
  const AttentionOptions options{0.3, 50, 2.0};
  const Tensor q = leaf(reference::random({200, 4, 8}, 1, at::kBFloat16)),
               k = leaf(reference::random({200, 2, 8}, 2, at::kBFloat16)),
               v = leaf(reference::random({200, 2, 8}, 3, at::kBFloat16)),
               dy = reference::random({200, 4, 8}, 4, at::kBFloat16);
  const Tensor y = attention(q, k, v, starts, options);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  const Tensor wq = leaf(q.to(at::kDouble)), wk = leaf(k.to(at::kDouble)),
               wv = leaf(v.to(at::kDouble));
  const Tensor expected = plain_attention(wq, wk, wv, starts, options);
  expect_close(y, expected, 2e-2, "y");  // scores and probabilities are rounded to 8 bits
  const auto grads = gradients(y, dy, {q, k, v}),
             wide = gradients(expected, dy.to(at::kDouble), {wq, wk, wv});
  for (std::size_t i = 0; i < 3; ++i) expect_close(grads[i], wide[i], 3e-2, "gradient");
}

/// Segments 1 and 2 go on after segment 0, segment 3 stands alone, 5 goes on after 4.
struct Shared {
  Starts starts = {0, 30, 31, 80, 90, 240, 400}, parents = {-1, 0, 0, -1, -1, 4};

  /// The rows of every whole sequence in the stream, and where in them each token of the stream is.
  Starts whole_starts = {0};
  std::vector<std::int64_t> rows, places;

  Shared() {
    for (std::size_t s = 0; s < parents.size(); ++s) {
      const auto add = [&](std::size_t segment) {
        for (std::int64_t i = starts[segment]; i < starts[segment + 1]; ++i) rows.push_back(i);
      };
      if (parents[s] >= 0) add(static_cast<std::size_t>(parents[s]));
      for (std::int64_t i = 0; i < starts[s + 1] - starts[s]; ++i)
        places.push_back(static_cast<std::int64_t>(rows.size()) + i);
      add(s);
      whole_starts.push_back(static_cast<std::int64_t>(rows.size()));
    }
  }
};

void check_shared(const AttentionOptions& options, at::ScalarType dtype, double tolerance,
                  std::int64_t key_heads) {
  const Shared shared;
  const Tensor q = leaf(reference::random({400, 2 * key_heads, 8}, 1, dtype)),
               k = leaf(reference::random({400, key_heads, 8}, 2, dtype)),
               v = leaf(reference::random({400, key_heads, 8}, 3, dtype)),
               dy = reference::random({400, 2 * key_heads, 8}, 4, dtype);
  const Tensor rows = at::tensor(shared.rows, at::kLong),
               places = at::tensor(shared.places, at::kLong);
  std::vector<Tensor> wide;
  for (const Tensor& x : {q, k, v}) wide.push_back(leaf(x.detach().to(at::kDouble)));
  const auto whole = [&](const Tensor& x) { return x.index_select(0, rows); };
  const Tensor y = attention(q, k, v, Segments(shared.starts, shared.parents), options),
               expected = plain_attention(whole(wide[0]), whole(wide[1]), whole(wide[2]),
                                          shared.whole_starts, options)
                              .index_select(0, places);
  const std::string name = fmt::format("window {}, softcap {}, {}, {} key heads", options.window,
                                       options.softcap, toString(dtype), key_heads);
  expect_same_pass(y, expected, dy, {q, k, v}, wide, tolerance, name);
}

TEST(SharedSegments, AreTheWholeSequences) {
  for (const AttentionOptions& options : std::vector<AttentionOptions>{
           {0.3, 0, 0.0}, {0.3, 400, 0.0}, {0.3, 7, 0.0}, {0.3, 160, 0.0}, {0.3, 0, 1.5}}) {
    for (const std::int64_t key_heads : {2, 6}) {
      check_shared(options, at::kDouble, reference::kDoubleTolerance, key_heads);
      check_shared(options, at::kFloat, reference::kFloatTolerance, key_heads);
      check_shared(options, at::kBFloat16, 3e-2, key_heads);
    }
  }
}

TEST(CachedAttention, WindowAndSoftcapEqualTheFullPass) {
  const Starts starts = {0, 60, 120}, prompts = {40, 3};
  const AttentionOptions options{0.3, 12, 1.5};
  const Tensor q = reference::random({120, 4, 8}, 1), k = reference::random({120, 2, 8}, 2),
               v = reference::random({120, 2, 8}, 3);
  const Tensor full = plain_attention(q, k, v, starts, options);
  CachedRun run(q, k, v, starts, options);
  for (int i = 0; i < 20; ++i) {
    const auto [y, places] = run.pass(i == 0 ? prompts : Starts{1, 1});
    expect_close(y, full.index_select(0, places), reference::kDoubleTolerance,
                 "pass " + std::to_string(i));
  }
}

TEST(CachedAttention, RefusesSeveralTokensAfterTheFirstPass) {
  const Tensor x = reference::random({10, 2, 4}, 1);
  CachedRun run(x, x, x, {0, 10});
  run.pass({3});
  EXPECT_THROW(run.pass({2}), Error);
}

}  // namespace
}  // namespace finetune
