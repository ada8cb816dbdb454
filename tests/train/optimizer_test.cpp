#include "train/optimizer.h"

#include "finetune/base/error.h"
#include "train/backward_updates.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace finetune {
namespace {

/// A few parameters of a model that is not there: two large, two small, one without decay.
struct Parameters {
  explicit Parameters(at::ScalarType dtype = at::kFloat, bool with_gradients = true) {
    at::manual_seed(5);
    tensors = {at::randn({70, 100}), at::randn({3, 5}), at::randn({5000}), at::randn({7})};
    flat.emplace(std::vector<TrainableParameter>{{"a", &tensors[0], true, 1},
                                                 {"b", &tensors[1], true, 4},
                                                 {"c", &tensors[2], true, 4},
                                                 {"d", &tensors[3], false, 1}},
                 dtype, with_gradients);
  }

  /// Fills the gradients, the same for the same seed.
  void draw_gradients(std::uint64_t seed, double scale = 1) {
    at::manual_seed(seed);
    for (Tensor& tensor : tensors) tensor.mutable_grad().normal_(0, scale);
  }

  std::vector<Tensor> tensors;  // slots: leaves afterwards
  std::optional<FlatParameters> flat;
};

Config config_of(Optim optim) {
  Config config;
  config.optim = optim;
  config.weight_decay = 0.1;
  config.momentum = 0.9;
  config.adam_beta2 = 0.99;
  return config;
}

double difference(const Tensor& left, const Tensor& right) {
  return (left - right).abs().max().item<double>();
}

TEST(FlatParameters, GroupsLargeFirstThenByDecayAndRate) {
  const Parameters parameters;
  const FlatParameters& flat = *parameters.flat;
  std::vector<std::string> names;
  for (const FlatParameter& parameter : flat.parameters()) {
    names.push_back(parameter.name);
    EXPECT_EQ(parameter.span.begin % FlatParameters::kAlignment, 0);
    EXPECT_EQ(flat.name_at(parameter.span.begin), parameter.name);
    EXPECT_EQ(flat.name_at(parameter.span.begin + parameter.span.count - 1), parameter.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a", "c", "b", "d"}));
  EXPECT_EQ(flat.groups().size(), 4U);
  EXPECT_EQ(flat.size(), 7000 + 15 + 5000 + 7);
  EXPECT_EQ(flat.large_size(), 7168 + 5120);
}

TEST(FlatParameters, NeighboursOfOneKindAreOneGroup) {
  Tensor first = at::ones({5000}), second = at::ones({6000}), bias = at::ones({10});
  const FlatParameters flat({{"w", &first}, {"bias", &bias, false}, {"v", &second}}, at::kFloat,
                            true);
  ASSERT_EQ(flat.groups().size(), 2U);
  EXPECT_EQ(flat.groups()[0].count, 5120 + 6000);
  EXPECT_EQ(flat.groups()[1].begin, flat.large_size());
}

TEST(FlatParameters, FrozenWeightSharesTheTrainedMemory) {
  FrozenWeight frozen(at::ones({2, 3}));
  Tensor slot = frozen.dense();
  const FlatParameters flat({{"w", &slot, true, 1, &frozen}}, at::kFloat, true);
  Tensor(flat.values()).fill_(2);
  EXPECT_EQ(frozen.dense().data_ptr(), slot.data_ptr());
  EXPECT_EQ(frozen.dense().sum().item<float>(), 12);
}

TEST(FlatParameters, MicroBatchesAreSummedInFloat32) {
  Tensor slot = at::ones({1});
  const FlatParameters flat({{"w", &slot}}, at::kBFloat16, true);
  for (int i = 0; i < 1000; ++i) (slot.to(at::kFloat) * 1.0).sum().backward();
  EXPECT_EQ(flat.gradients()[0].item<float>(), 1000);  // bfloat16 would stay at 256
}

/// The update rules in double, element by element, over five steps.
class Rules : public ::testing::TestWithParam<Optim> {};

TEST_P(Rules, AreTheFormulas) {
  const Config config = config_of(GetParam());
  Parameters parameters;
  Optimizer optimizer(config, *parameters.flat);
  std::vector<Tensor> w, m, v;
  for (const Tensor& tensor : parameters.tensors) {
    w.push_back(tensor.detach().to(at::kDouble, false, true));
    m.push_back(at::zeros_like(w.back()));
    v.push_back(at::zeros_like(w.back()));
  }
  for (std::int64_t step = 1; step <= 5; ++step) {
    parameters.draw_gradients(static_cast<std::uint64_t>(step));
    const double scales[] = {1, 4, 4, 1}, decays[] = {0.1, 0.1, 0.1, 0};
    for (std::size_t i = 0; i < w.size(); ++i) {
      const Tensor g = parameters.tensors[i].grad().to(at::kDouble);
      const double rate = 0.01 * scales[i];
      w[i] = w[i] * (1 - rate * decays[i]);
      if (GetParam() == Optim::lion) {
        w[i] = w[i] - rate * (0.9 * m[i] + 0.1 * g).sign();
        m[i] = 0.99 * m[i] + 0.01 * g;
      } else if (GetParam() == Optim::sgd) {
        m[i] = 0.9 * m[i] + g;
        w[i] = w[i] - rate * m[i];
      } else {
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.99 * v[i] + 0.01 * g * g;
        const auto t = static_cast<double>(step);
        w[i] = w[i] - rate * (m[i] / (1 - std::pow(0.9, t))) /
                          ((v[i] / (1 - std::pow(0.99, t))).sqrt() + 1e-8);
      }
    }
    optimizer.step(step, 0.01);
  }
  for (std::size_t i = 0; i < w.size(); ++i)
    EXPECT_LT(difference(parameters.tensors[i].detach().to(at::kDouble), w[i]), 2e-6) << i;
}

INSTANTIATE_TEST_SUITE_P(All, Rules, ::testing::Values(Optim::adamw, Optim::lion, Optim::sgd),
                         [](const auto& info) { return to_string(info.param); });

TEST(Optimizer, EightBitsAreNearFloat32AndExactWhereSmall) {
  Parameters exact, eight;
  Optimizer reference(config_of(Optim::adamw), *exact.flat);
  Optimizer optimizer(config_of(Optim::adamw_8bit), *eight.flat);
  for (std::int64_t step = 1; step <= 20; ++step) {
    for (Parameters* parameters : {&exact, &eight})
      parameters->draw_gradients(static_cast<std::uint64_t>(step));
    reference.step(step, 1e-3);
    optimizer.step(step, 1e-3);
  }
  // A step is at most about the rate; eight bits lose one part in some dozens of it.
  const double moved = 20 * 1e-3;
  for (std::size_t i = 0; i < exact.tensors.size(); ++i) {
    const double scale = i == 1 || i == 2 ? 4 : 1;
    const Tensor error = (exact.tensors[i] - eight.tensors[i]).detach() / (moved * scale);
    const double mean = error.abs().mean().item<double>();
    EXPECT_LT(mean, exact.tensors[i].numel() < FlatParameters::kLarge ? 1e-9 : 0.01) << i;
  }
}

TEST(Optimizer, EightBitStateIsAQuarter) {
  const Parameters parameters;
  const auto state = Optimizer(config_of(Optim::adamw_8bit), *parameters.flat).state();
  EXPECT_EQ(state.at("exp_avg.codes").scalar_type(), at::kByte);
  EXPECT_EQ(state.at("exp_avg.codes").numel(), parameters.flat->large_size());
  EXPECT_EQ(state.at("exp_avg_sq.absmax").numel(), parameters.flat->large_size() / 256);
  EXPECT_EQ(state.at("exp_avg").numel(), 2 * 256);  // b and d
}

TEST(Optimizer, SavedStateContinuesToTheSameBits) {
  for (const Optim optim : {Optim::adamw, Optim::adamw_8bit, Optim::lion, Optim::sgd}) {
    Parameters whole(at::kBFloat16), part(at::kBFloat16);
    Optimizer first(config_of(optim), *whole.flat);
    std::map<std::string, Tensor> saved;
    for (std::int64_t step = 1; step <= 4; ++step) {
      whole.draw_gradients(static_cast<std::uint64_t>(step));
      first.step(step, 1e-2);
      if (step != 2) continue;
      for (const auto& [name, tensor] : first.state()) saved[name] = tensor.clone();
      Tensor(part.flat->values()).copy_(whole.flat->values());
    }
    Optimizer second(config_of(optim), *part.flat);
    second.load(saved, "here");
    for (std::int64_t step = 3; step <= 4; ++step) {
      part.draw_gradients(static_cast<std::uint64_t>(step));
      second.step(step, 1e-2);
    }
    EXPECT_TRUE(at::equal(whole.flat->values(), part.flat->values())) << to_string(optim);
  }
}

TEST(Optimizer, MissingStateIsAnError) {
  const Parameters parameters;
  Optimizer optimizer(config_of(Optim::adamw_8bit), *parameters.flat);
  EXPECT_THROW(optimizer.load({}, "here"), Error);
}

/// Updates far below half a step of bfloat16 add up: 1000 of 1/64 of a step.
TEST(Optimizer, SmallUpdatesOfBfloat16AreNotLost) {
  Tensor slot = at::ones({5000});
  const FlatParameters flat({{"w", &slot}}, at::kBFloat16, true);
  Config config = config_of(Optim::sgd);
  config.momentum = config.weight_decay = 0;
  Optimizer optimizer(config, flat);
  Tensor(flat.gradients()).fill_(-1);
  const double rate = std::ldexp(1.0, -13);
  for (std::int64_t step = 1; step <= 1000; ++step) optimizer.step(step, rate);
  // 5000 walks; the deviation of one is sqrt(sum p (1 - p)) steps, about 4 steps of 2^-7.
  EXPECT_NEAR(slot.detach().to(at::kFloat).mean().item<double>(), 1 + 1000 * rate, 0.003);
}

Tensor toy_loss(const std::vector<Tensor>& t) {
  const Tensor x = at::linspace(-1, 1, 70).to(t[0].scalar_type());
  // "d" is never reached.
  return (x.matmul(t[0]).tanh().sum() + t[1].square().sum() + (t[2] * t[2]).sum()).to(at::kFloat);
}

TEST(BackwardUpdates, GiveWhatTheFlatGradientsGive) {
  for (const Optim optim : {Optim::adamw, Optim::adamw_8bit, Optim::lion, Optim::sgd}) {
    Parameters flat, leaves(at::kFloat, false);
    Optimizer plain(config_of(optim), *flat.flat), inside(config_of(optim), *leaves.flat);
    BackwardUpdates updates(*leaves.flat, inside);
    for (std::int64_t step = 1; step <= 3; ++step) {
      Tensor(flat.flat->gradients()).zero_();
      toy_loss(flat.tensors).backward();
      const double norm = clip_gradients(*flat.flat, 0);
      plain.step(step, 1e-2);
      updates.begin(step, 1e-2);
      toy_loss(leaves.tensors).backward();
      EXPECT_NEAR(updates.finish(), norm, 1e-5 * norm);
      for (const Tensor& leaf : leaves.tensors) EXPECT_FALSE(leaf.grad().defined());
    }
    // Vectors end elsewhere, which may change the last bit.
    EXPECT_LT(difference(flat.flat->values(), leaves.flat->values()), 1e-6) << to_string(optim);
  }
}

TEST(BackwardUpdates, NothingAfterANonfiniteGradientIsApplied) {
  Parameters parameters(at::kFloat, false);
  Optimizer optimizer(config_of(Optim::sgd), *parameters.flat);
  BackwardUpdates updates(*parameters.flat, optimizer);
  const Tensor before = parameters.flat->values().clone();
  updates.begin(1, 1e-2);
  (parameters.tensors[0].sum() * std::numeric_limits<double>::infinity()).backward();
  EXPECT_FALSE(std::isfinite(updates.finish()));
  EXPECT_EQ(updates.nonfinite(), "a");
  EXPECT_FALSE(updates.any_applied());
  EXPECT_TRUE(at::equal(parameters.flat->values(), before));
}

/// Layers whose weights are saved for the backward pass: updating one must not invalidate another.
TEST(BackwardUpdates, ChainOfLayers) {
  at::manual_seed(2);
  Tensor first = at::randn({80, 80}), second = at::randn({80, 80});
  const FlatParameters flat({{"1", &first}, {"2", &second}}, at::kFloat, false);
  Optimizer optimizer(config_of(Optim::adamw), flat);
  BackwardUpdates updates(flat, optimizer);
  updates.begin(1, 1e-2);
  const Tensor x = at::randn({4, 80});
  EXPECT_NO_THROW(at::linear(at::linear(x, first).tanh(), second).square().mean().backward());
  updates.finish();
  EXPECT_TRUE(updates.any_applied());
}

}  // namespace
}  // namespace finetune
