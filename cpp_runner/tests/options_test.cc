#include "options.h"

#include <gtest/gtest.h>

#include <cmath>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

using testing::ErrorOf;

Options Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "diffusion-sampler");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data()).value();
}

Manifest ToyManifest() {
  testing::ToyArtifact toy;
  toy.manifest["tensors"] = nlohmann::json::object();
  return ParseManifest(toy.manifest.dump());
}

TEST(Options, SampleTakesAllThatItPromises) {
  const Options options =
      Parse({"sample",     "a",       "-o",    "x.png",    "-n",        "12",      "--seed",
             "4294967295", "--label", "cat,1", "--label",  "none",      "--steps", "3",
             "--eta",      "0.5",     "--set", "blur=2.5", "--columns", "4",       "--no-cache"});
  EXPECT_EQ(options.command, Command::kSample);
  EXPECT_EQ(options.count, 12);
  EXPECT_EQ(options.seed, 4294967295U);
  EXPECT_EQ(options.labels, (std::vector<std::string>{"cat", "1", "none"}));
  EXPECT_EQ(options.parameters.at("blur"), 2.5);
  EXPECT_EQ(options.parameters.count("temperature"), 0U);
  EXPECT_EQ(options.columns, 4);
  EXPECT_FALSE(options.cache);
}

TEST(Options, ColumnsNeedNoNumber) {
  const Options options = Parse({"sample", "a", "-o", "x.png", "--columns"});
  ASSERT_TRUE(options.columns.has_value());
  EXPECT_EQ(*options.columns, 0);
  EXPECT_FALSE(Parse({"sample", "a", "-o", "x.png"}).columns.has_value());
}

TEST(Options, NumbersOfASamplerAreOptionsByTheirNames) {
  const Options options = Parse({"sample", "--strength", "0.3", "a", "-o", "x.png", "--s-noise=-2",
                                 "--steps", "3", "--set", "blur=1"});
  EXPECT_EQ(options.artifact, "a");
  EXPECT_EQ(options.parameters,
            (std::map<std::string, double>{
                {"strength", 0.3}, {"s_noise", -2}, {"steps", 3}, {"blur", 1}}));
}

TEST(Options, ALabelDoesNotTakeTheArtifact) {
  const Options options = Parse({"sample", "--label", "cat,dog", "a", "-o", "x.png"});
  EXPECT_EQ(options.artifact, "a");
  EXPECT_EQ(options.labels, (std::vector<std::string>{"cat", "dog"}));
}

TEST(Options, ALeadingZeroIsNotOctal) {
  const Options options = Parse({"sample", "a", "-o", "x.png", "--seed", "010", "-n", "08",
                                 "--first", "0010", "--device", "01"});
  EXPECT_EQ(options.seed, 10U);
  EXPECT_EQ(options.count, 8);
  EXPECT_EQ(options.first, 10);
  EXPECT_EQ(options.device, 1);
}

TEST(Options, ANumberOutOfRangeIsToldTheRange) {
  const std::vector<std::pair<const char*, std::string>> ranges = {
      {"--seed", "0 to 4294967295"}, {"--count", "1 to 1000000"}, {"--device", "0 to 1000000"},
      {"--batch", "1 to 1000000"},   {"--strip", "1 to 1000000"}, {"--first", "0 to 1000000000"},
      {"--columns", "0 to 10000"}};
  for (const auto& [option, range] : ranges) {
    for (const char* wrong : {"-1", "4294967296", "99999999999999999999", "1.5", "x", "0x10"}) {
      const std::string error =
          ErrorOf([&] { Parse({"sample", "a", "-o", "x.png", option, wrong}); });
      const std::string wanted =
          "must be a whole number from " + range + "; got '" + std::string(wrong) + "'";
      EXPECT_NE(error.find(wanted), std::string::npos) << option << " " << wrong << ": " << error;
    }
  }
}

TEST(Options, RefusesWrongUsage) {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"paint"},
      {"sample", "a"},
      {"sample", "-o", "x.png"},
      {"sample", "a", "-o", "x.png", "--seed", "4294967296"},
      {"sample", "a", "-o", "x.png", "--seed", "-1"},
      {"sample", "a", "-o", "x.png", "--seed", ""},
      {"sample", "a", "-o", "x.png", "-n", "0"},
      {"sample", "a", "-o", "x.png", "--set", "eta"},
      {"sample", "a", "-o", "x.png", "--set", "eta=x"},
      {"sample", "a", "-o", "x.png", "--steps", "many"},
      {"sample", "a", "-o", "x.png", "--strength", "much"},
      {"sample", "a", "-o", "x.png", "--strength"},
      {"verify", "a", "--strength", "1"},
      {"info", "a", "b"},
  };
  for (const auto& arguments : wrong) {
    EXPECT_EQ(ErrorOf([&] { Parse(arguments); }).substr(0, 2), "2:") << arguments.size();
  }
}

TEST(Options, ParametersAreCheckedAgainstTheArtifact) {
  const Manifest manifest = ToyManifest();
  const auto values = ResolveParameters(manifest, {{"eta", 0.5}});
  EXPECT_EQ(values.at("eta"), 0.5);
  EXPECT_EQ(values.at("steps"), 5.0);
  for (const std::map<std::string, double>& wrong : {std::map<std::string, double>{{"eta", 1.5}},
                                                     {{"eta", NAN}},
                                                     {{"steps", 0}},
                                                     {{"steps", 2.5}},
                                                     {{"blur", 1}}}) {
    EXPECT_EQ(ErrorOf([&] { ResolveParameters(manifest, wrong); }).substr(0, 2), "2:");
  }
}

TEST(Options, LabelsAreNumbersNamesAllOrNone) {
  const Manifest manifest = ToyManifest();
  using Ints = std::vector<int32_t>;
  EXPECT_EQ(ResolveLabels(manifest, {}, 3), (Ints{0, 1, 0}));
  EXPECT_EQ(ResolveLabels(manifest, {"dog"}, 2), (Ints{1, 1}));
  EXPECT_EQ(ResolveLabels(manifest, {"0", "none"}, 3), (Ints{0, 2, 0}));
  EXPECT_EQ(ResolveLabels(manifest, {"all"}, 2), (Ints{0, 1}));
  for (const char* wrong : {"2", "-1", "bird", "", "1x"}) {
    EXPECT_EQ(ErrorOf([&] { ResolveLabels(manifest, {wrong}, 1); }).substr(0, 2), "2:") << wrong;
  }
}

}  // namespace
}  // namespace diffusion_sampler
