#include "finetune/nn/loss.h"

#include "nn/reference.h"

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

/// Sum of -log softmax(hidden head^T)[target].
Tensor plain_sum(const Tensor& hidden, const Tensor& head, const Tensor& targets) {
  const Tensor logits = hidden.matmul(head.t());
  return -logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).sum();
}

const Tensor kTargets = at::tensor({3, 0, 10, 3, 7}, at::kLong);

TEST(CrossEntropySum, MatchesTheReference) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1)),
               head = leaf(reference::random({11, 4}, 2));
  const Tensor sum = cross_entropy_sum(hidden, {head}, kTargets),
               expected = plain_sum(hidden, head, kTargets);
  EXPECT_EQ(sum.dim(), 0);
  expect_close(sum, expected, reference::kDoubleTolerance, "sum");
  const Tensor factor = at::scalar_tensor(0.125, at::kDouble);  // the caller divides by a count
  const auto grads = gradients(sum, factor, {hidden, head}),
             expected_grads = gradients(expected, factor, {hidden, head});
  expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dhidden");
  expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dhead");
}

TEST(CrossEntropySum, FrozenHeadGetsNoGradient) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1)), head = reference::random({11, 4}, 2);
  const auto grads =
      gradients(cross_entropy_sum(hidden, {head}, kTargets), at::ones({}, at::kDouble), {hidden});
  const auto expected =
      gradients(plain_sum(hidden, head, kTargets), at::ones({}, at::kDouble), {hidden});
  expect_close(grads[0], expected[0], reference::kDoubleTolerance, "dhidden");
}

TEST(CrossEntropySum, TrainedHeadBelowFrozenHiddenStates) {
  const Tensor hidden = reference::random({5, 4}, 1), head = leaf(reference::random({11, 4}, 2));
  const auto grads =
      gradients(cross_entropy_sum(hidden, {head}, kTargets), at::ones({}, at::kDouble), {head});
  const auto expected =
      gradients(plain_sum(hidden, head, kTargets), at::ones({}, at::kDouble), {head});
  expect_close(grads[0], expected[0], reference::kDoubleTolerance, "dhead");
}

TEST(CrossEntropySum, TilesAddUp) {
  // In double: float32 sums of so many terms differ with the shape of the product.
  const std::int64_t vocabulary = 1 << 17, rows = 2 * logits_tile_rows(vocabulary) + 1;
  const Tensor hidden = leaf(reference::random({rows, 2}, 1, at::kDouble)),
               head = leaf(reference::random({vocabulary, 2}, 2, at::kDouble));
  const Tensor targets = at::arange(rows, at::kLong).mul(vocabulary / rows);
  const Tensor sum = cross_entropy_sum(hidden, {head}, targets);
  const auto grads = gradients(sum, at::ones({}, at::kDouble), {hidden, head});
  Tensor expected = at::zeros({}, at::kDouble),
         expected_dhead = at::zeros({vocabulary, 2}, at::kDouble);
  for (std::int64_t i = 0; i < rows; ++i) {
    const Tensor row = leaf(hidden.slice(0, i, i + 1));
    const Tensor one = cross_entropy_sum(row, {head}, targets.slice(0, i, i + 1));
    const auto one_grads = gradients(one, at::ones({}, at::kDouble), {row, head});
    expected.add_(one.detach());
    expected_dhead.add_(one_grads[1]);
    expect_close(grads[0].slice(0, i, i + 1), one_grads[0], 1e-6, "dhidden");
  }
  expect_close(sum, expected, 1e-6, "sum");
  expect_close(grads[1], expected_dhead, 1e-6, "dhead");
  const TokenScores scores = score_tokens(hidden.detach(), {head.detach()}, targets);
  expect_close(scores.nll.sum(), expected, 1e-6, "nll");
}

TEST(CrossEntropySum, LargeLogitsStayFinite) {
  const Tensor hidden = leaf(at::full({1, 1}, 1e4, at::kFloat)),
               head = at::tensor({1.0, -1.0, 0.0}, at::kFloat).unsqueeze(1);
  const Tensor sum = cross_entropy_sum(hidden, {head}, at::tensor({1}, at::kLong));
  EXPECT_FLOAT_EQ(sum.item<float>(), 2e4F);
  EXPECT_FLOAT_EQ(gradients(sum, at::ones({}), {hidden})[0].item<float>(), 2.0F);
}

TEST(CrossEntropySum, HalfTypesReduceInFloat) {
  const Tensor hidden = leaf(reference::random({200, 16}, 1, at::kBFloat16)),
               head = reference::random({64, 16}, 2, at::kBFloat16);
  const Tensor targets = at::arange(200, at::kLong).remainder(64);
  const Tensor sum = cross_entropy_sum(hidden, {head}, targets);
  EXPECT_EQ(sum.scalar_type(), at::kFloat);
  const Tensor wide = leaf(hidden.to(at::kDouble));
  const Tensor expected = plain_sum(wide, head.to(at::kDouble), targets);
  expect_close(sum / expected, at::ones({}), 1e-3,
               "sum");  // a bfloat16 sum of 200 terms would be off by percents
  const Tensor factor = at::scalar_tensor(1.0 / 200, at::kFloat);
  const auto grads = gradients(sum, factor, {hidden});
  EXPECT_EQ(grads[0].scalar_type(), at::kBFloat16);
  expect_close(grads[0].mul(200), gradients(expected, at::ones({}, at::kDouble), {wide})[0],
               reference::kBfloat16Tolerance, "dhidden");
}

TEST(CrossEntropySum, TrainedHeadInHalfTypesIsAFloatMaster) {
  const Tensor hidden = leaf(reference::random({50, 16}, 1, at::kBFloat16)),
               head = leaf(reference::random({64, 16}, 2, at::kFloat));
  const Tensor targets = at::arange(50, at::kLong);
  const auto grads = gradients(cross_entropy_sum(hidden, {head}, targets), at::ones({}), {head});
  EXPECT_EQ(grads[0].scalar_type(), at::kFloat);
  const Tensor wide = leaf(head.to(at::kDouble));
  expect_close(grads[0],
               gradients(plain_sum(hidden.to(at::kDouble), wide, targets),
                         at::ones({}, at::kDouble), {wide})[0],
               reference::kBfloat16Tolerance, "dhead");
}

TEST(CrossEntropySum, HeadGradientKeepsWhatLateTilesAdd) {
  // 3 tiles whose rows all want token 5: the first adds -1024 to its row, the others -3 each, which
  // vanish in bfloat16's 8 bits.
  const std::int64_t vocabulary = 1 << 17, tile = logits_tile_rows(vocabulary);
  Tensor hidden =
      at::full({3 * tile, 1}, 3.0 / static_cast<double>(tile), at::TensorOptions(at::kBFloat16));
  hidden.slice(0, 0, tile).fill_(1024.0 / static_cast<double>(tile));
  const Tensor head = leaf(at::zeros({vocabulary, 1}, at::kFloat)),
               targets = at::full({3 * tile}, 5, at::kLong);
  const auto grads = gradients(cross_entropy_sum(hidden, {head}, targets), at::ones({}), {head});
  EXPECT_NEAR(grads[0][5].item<float>(), -1030.0F, 0.5F);
}

TEST(CrossEntropySum, NoRowsIsZero) {
  const Tensor hidden = leaf(at::zeros({0, 4}, at::kDouble)),
               head = leaf(reference::random({11, 4}, 2));
  const Tensor none = at::empty({0}, at::kLong);
  const Tensor sum = cross_entropy_sum(hidden, {head}, none);
  EXPECT_EQ(sum.item<double>(), 0.0);
  expect_close(gradients(sum, at::ones({}, at::kDouble), {head})[0],
               at::zeros({11, 4}, at::kDouble), 0.0, "dhead");
}

TEST(ScoreTokens, NoRows) {
  const TokenScores scores =
      score_tokens(at::zeros({0, 4}), {at::zeros({11, 4})}, at::empty({0}, at::kLong));
  EXPECT_EQ(scores.nll.sum().item<float>(), 0.0F);
  EXPECT_EQ(scores.correct.numel(), 0);
}

TEST(ScoreTokens, GivesEveryTokensLossAndHit) {
  const Tensor hidden = reference::random({5, 4}, 1), head = reference::random({11, 4}, 2);
  const Tensor logits = hidden.matmul(head.t());
  Tensor targets = kTargets.clone();
  targets[1] = logits[1].argmax();  // one hit at least
  const TokenScores scores = score_tokens(hidden, {head}, targets);
  expect_close(scores.nll, -logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1),
               reference::kDoubleTolerance, "nll");
  EXPECT_EQ(scores.correct.scalar_type(), at::kBool);
  EXPECT_TRUE(at::equal(scores.correct, logits.argmax(-1).eq(targets)));
  EXPECT_TRUE(scores.correct[1].item<bool>());
  expect_close(scores.nll.sum(), cross_entropy_sum(hidden, {head}, targets),
               reference::kDoubleTolerance, "sum");
}

TEST(CrossEntropySum, BiasScaleAndSoftcap) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1).mul(3.0)),
               weight = leaf(reference::random({11, 4}, 2)),
               bias = leaf(reference::random({11}, 3));
  const Head head{weight, bias, 0.7, 1.3};
  const Tensor logits = ((hidden.matmul(weight.t()) + bias) * 0.7 / 1.3).tanh() * 1.3;
  expect_close(head_logits(hidden.detach(), head), logits, reference::kDoubleTolerance, "logits");
  const Tensor expected = -logits.log_softmax(-1).gather(1, kTargets.unsqueeze(1)).sum();
  const Tensor sum = cross_entropy_sum(hidden, head, kTargets);
  expect_close(sum, expected, reference::kDoubleTolerance, "sum");
  const Tensor one = at::ones({}, at::kDouble);
  const auto grads = gradients(sum, one, {hidden, weight, bias}),
             expected_grads = gradients(expected, one, {hidden, weight, bias});
  for (std::size_t i = 0; i < 3; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
  const TokenScores scores = score_tokens(hidden.detach(), head, kTargets);
  expect_close(scores.nll.sum(), expected, reference::kDoubleTolerance, "nll");
}

TEST(CrossEntropySum, LabelSmoothingAsTorchHasIt) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1)),
               weight = leaf(reference::random({11, 4}, 2));
  LossOptions options;
  options.label_smoothing = 0.2;
  Tensor nll;
  options.token_nll = &nll;
  const Tensor sum = cross_entropy_sum(hidden, {weight, {}, 1.0, 1.3}, kTargets, options);
  const Tensor logits = (hidden.matmul(weight.t()) / 1.3).tanh() * 1.3;
  const Tensor expected =
      at::cross_entropy_loss(logits, kTargets, {}, at::Reduction::Sum, -100, 0.2);
  expect_close(sum, expected, reference::kDoubleTolerance, "sum");
  const Tensor one = at::ones({}, at::kDouble);
  const auto grads = gradients(sum, one, {hidden, weight}),
             expected_grads = gradients(expected, one, {hidden, weight});
  for (std::size_t i = 0; i < 2; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
  const Tensor plain = at::cross_entropy_loss(logits, kTargets, {}, at::Reduction::None);
  expect_close(nll, plain, reference::kDoubleTolerance, "nll");
}

/// Of either sign, with the float32 loop and without it.
TEST(CrossEntropySum, WeightsOfTokens) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const double tolerance =
        dtype == at::kDouble ? reference::kDoubleTolerance : reference::kFloatTolerance;
    const Tensor hidden = leaf(reference::random({5, 4}, 1, dtype)),
                 weight = leaf(reference::random({11, 4}, 2, dtype));
    LossOptions options;
    options.token_weights = at::tensor({0.5, -1.0, 0.0, 2.0, 0.25}, dtype);
    Tensor nll;
    options.token_nll = &nll;
    const Tensor sum = cross_entropy_sum(hidden, {weight}, kTargets, options);
    const Tensor plain =
        at::cross_entropy_loss(hidden.matmul(weight.t()), kTargets, {}, at::Reduction::None);
    const Tensor expected = plain.mul(options.token_weights).sum();
    expect_close(sum, expected, tolerance, "sum");
    expect_close(nll, plain, tolerance, "nll");
    const Tensor one = at::ones({}, dtype);
    const auto grads = gradients(sum, one, {hidden, weight}),
               expected_grads = gradients(expected, one, {hidden, weight});
    for (std::size_t i = 0; i < 2; ++i)
      expect_close(grads[i], expected_grads[i], tolerance, "gradient");
  }
}

TEST(CrossEntropySum, HeadWithLora) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1)), weight = reference::random({11, 4}, 2);
  Lora lora;
  lora.a = leaf(reference::random({2, 4}, 3));
  lora.b = leaf(reference::random({11, 2}, 4));
  lora.scaling = 0.6;
  const Head head{weight, {}, 0.7, 1.3, lora};
  const Tensor products =
      hidden.matmul(weight.t()) + 0.6 * hidden.matmul(lora.a.t()).matmul(lora.b.t());
  const Tensor logits = (products * 0.7 / 1.3).tanh() * 1.3;
  expect_close(head_logits(hidden.detach(), head), logits, reference::kDoubleTolerance, "logits");
  const Tensor expected = -logits.log_softmax(-1).gather(1, kTargets.unsqueeze(1)).sum();
  const Tensor sum = cross_entropy_sum(hidden, head, kTargets);
  expect_close(sum, expected, reference::kDoubleTolerance, "sum");
  const std::vector<Tensor> leaves = {hidden, lora.a, lora.b};
  const Tensor one = at::ones({}, at::kDouble);
  const auto grads = gradients(sum, one, leaves), expected_grads = gradients(expected, one, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
}

/// A loss that no weighted sum is: of the squares of the tokens' losses.
TEST(TokenNll, IsDifferentiableInWhatTrains) {
  for (const bool head_trains : {false, true}) {
    const Tensor hidden = leaf(reference::random({5, 4}, 1)), bias = reference::random({11}, 5),
                 weight = head_trains ? leaf(reference::random({11, 4}, 2))
                                      : reference::random({11, 4}, 2);
    const Tensor logits = ((hidden.matmul(weight.t()) + bias) * 0.7 / 1.3).tanh() * 1.3;
    const Tensor plain = at::cross_entropy_loss(logits, kTargets, {}, at::Reduction::None);
    Tensor squares;
    const Tensor nll = token_nll(hidden, {weight, bias, 0.7, 1.3}, kTargets, &squares);
    expect_close(nll, plain, reference::kDoubleTolerance, "nll");
    expect_close(squares, logits.softmax(-1).square().sum(-1).log(), reference::kDoubleTolerance,
                 "squares");
    EXPECT_FALSE(squares.requires_grad());
    std::vector<Tensor> leaves = {hidden};
    if (head_trains) leaves.push_back(weight);
    const Tensor one = at::ones({}, at::kDouble);
    const auto grads = gradients(nll.square().sum(), one, leaves),
               expected = gradients(plain.square().sum(), one, leaves);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      expect_close(grads[i], expected[i], reference::kDoubleTolerance, "gradient");
  }
}

TEST(TokenNll, HeadWithLora) {
  const Tensor hidden = leaf(reference::random({5, 4}, 1)), weight = reference::random({11, 4}, 2);
  Lora lora;
  lora.a = leaf(reference::random({2, 4}, 3));
  lora.b = leaf(reference::random({11, 2}, 4));
  lora.scaling = 0.6;
  const Tensor logits =
      hidden.matmul(weight.t()) + 0.6 * hidden.matmul(lora.a.t()).matmul(lora.b.t());
  const Tensor plain = at::cross_entropy_loss(logits, kTargets, {}, at::Reduction::None);
  const Tensor nll = token_nll(hidden, {weight, {}, 1.0, 0.0, lora}, kTargets);
  const Tensor one = at::ones({}, at::kDouble);
  const std::vector<Tensor> leaves = {hidden, lora.a, lora.b};
  const auto grads = gradients(nll.square().sum(), one, leaves),
             expected = gradients(plain.square().sum(), one, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    expect_close(grads[i], expected[i], reference::kDoubleTolerance, "gradient");
}

/// Training and scoring without a gradient give the same bits: rewards at the start are 0.
TEST(TokenNll, SameBitsWithoutGradient) {
  const Tensor hidden = leaf(reference::random({40, 16}, 1, at::kFloat)),
               weight = reference::random({64, 16}, 2, at::kFloat);
  const Tensor targets = at::arange(40, at::kLong);
  const Tensor trained = token_nll(hidden, {weight}, targets);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(trained.detach(), token_nll(hidden, {weight}, targets)));
}

}  // namespace
}  // namespace finetune
