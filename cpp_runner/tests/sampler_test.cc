#include "sampler.h"

#include <gtest/gtest.h>

#include <numeric>

namespace diffusion_sampler {
namespace {

using Sizes = std::vector<int64_t>;

TEST(Plan, UsesTheLeastWork) {
  const Sizes sizes = {1, 8, 64};
  EXPECT_EQ(PlanBatches(1, sizes), (Sizes{1}));
  EXPECT_EQ(PlanBatches(8, sizes), (Sizes{8}));
  EXPECT_EQ(PlanBatches(64, sizes), (Sizes{64}));
  EXPECT_EQ(PlanBatches(65, sizes), (Sizes{64, 1}));
  EXPECT_EQ(PlanBatches(63, sizes), (Sizes{64}));
  EXPECT_EQ(PlanBatches(7, sizes), (Sizes{8}));
}

TEST(Plan, AlwaysHoldsTheImages) {
  for (const Sizes& sizes : {Sizes{1}, Sizes{4}, Sizes{3, 7}, Sizes{1, 8, 64}}) {
    for (int64_t count = 1; count < 300; ++count) {
      const Sizes plan = PlanBatches(count, sizes);
      const int64_t held = std::accumulate(plan.begin(), plan.end(), int64_t{0});
      EXPECT_GE(held, count);
      // No batch is for nothing.
      for (const int64_t batch : plan) EXPECT_LT(held - batch, count);
    }
  }
}

TEST(Platform, IsSpeltAsInTheArtifact) {
  EXPECT_EQ(PlatformOf("cpu"), "cpu");
  EXPECT_EQ(PlatformOf("gpu"), "cuda");
  EXPECT_EQ(PlatformOf("cuda"), "cuda");
  EXPECT_EQ(PlatformOf("rocm"), "rocm");
  EXPECT_EQ(PlatformOf("tpu"), "tpu");
}

}  // namespace
}  // namespace diffusion_sampler
