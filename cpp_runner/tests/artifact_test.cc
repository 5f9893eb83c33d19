#include "artifact.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

using testing::ErrorOf;
using testing::ToyArtifact;

std::string Check(const std::string& bytes) {
  return ErrorOf([&] { Artifact::FromBytes(bytes); });
}

TEST(Artifact, IsReadFromAFile) {
  const auto path = std::filesystem::temp_directory_path() / "artifact_test.safetensors";
  std::ofstream(path, std::ios::binary) << ToyArtifact().Bytes();
  const Artifact artifact = Artifact::Open(path);
  EXPECT_EQ(artifact.manifest().name, "toy");
  EXPECT_EQ(artifact.tensor("programs/init").bytes, "init");
  std::filesystem::remove(path);
  EXPECT_EQ(ErrorOf([&] { Artifact::Open(path); }).substr(0, 2), "3:");
}

TEST(Artifact, RefusesOtherFormatsAndVersions) {
  ToyArtifact toy;
  toy.version = "2";
  EXPECT_EQ(Check(toy.Bytes()).substr(0, 2), "5:");
  toy.version = "1";
  toy.format = "diffusion_eqx.model";
  EXPECT_EQ(Check(toy.Bytes()).substr(0, 2), "4:");
}

TEST(Artifact, RefusesWhatManifestAndTensorsDisagreeAbout) {
  ToyArtifact toy;
  EXPECT_EQ(Check(toy.Bytes()), "");
  toy.manifest["programs"][0]["init"]["tensor"] = "programs/none";
  EXPECT_NE(Check(toy.Bytes()).find("programs/none"), std::string::npos);
  toy = ToyArtifact();
  toy.manifest["programs"][0]["init"]["tensor"] = "weights/w";
  EXPECT_NE(Check(toy.Bytes()).find("does not hold a program"), std::string::npos);
  toy = ToyArtifact();
  toy.weights["w"] = std::string(16, '\0');
  EXPECT_NE(Check(toy.Bytes()).find("the weight 'w' is F32 [4]"), std::string::npos);
  toy = ToyArtifact();
  toy.weights.clear();
  EXPECT_NE(Check(toy.Bytes()).find("lacks the tensor 'weights/w'"), std::string::npos);
  toy = ToyArtifact();
  toy.manifest["tensors"] = nlohmann::json::object();
  EXPECT_NE(Check(toy.Bytes()).find("no digest"), std::string::npos);
}

// Only the names of padding tensors may change unnoticed: nobody reads them.
TEST(Artifact, NoticesEveryFlippedByteThatMatters) {
  const std::string whole = ToyArtifact().Bytes();
  const Container expected = ParseContainer(whole);
  for (size_t place = 0; place < whole.size(); ++place) {
    std::string changed = whole;
    changed[place] = static_cast<char>(changed[place] ^ 0x55);
    if (!Check(changed).empty()) continue;
    const Container found = ParseContainer(changed);
    EXPECT_EQ(found.metadata, expected.metadata) << place;
    ASSERT_EQ(found.tensors.size(), expected.tensors.size()) << place;
    for (const auto& [name, tensor] : expected.tensors) {
      EXPECT_EQ(found.tensors.at(name).bytes, tensor.bytes) << place;
    }
  }
}

}  // namespace
}  // namespace diffusion_sampler
