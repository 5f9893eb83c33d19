#include "manifest.h"

#include <gtest/gtest.h>

#include <functional>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

using nlohmann::json;
using testing::ErrorOf;
using testing::ToyArtifact;

json Complete() {
  ToyArtifact toy;
  toy.manifest["tensors"] = json::object();
  return toy.manifest;
}

TEST(Manifest, ReadsWhatTheFormatPromises) {
  const Manifest manifest = ParseManifest(Complete().dump());
  EXPECT_EQ(manifest.name, "toy");
  EXPECT_EQ(manifest.shape, (std::array<int64_t, 3>{2, 3, 1}));
  EXPECT_EQ(manifest.FindParameter("steps")->max, 9.0);
  EXPECT_EQ(manifest.FindParameter("nothing"), nullptr);
  EXPECT_EQ(manifest.labels->names[1], "dog");
  EXPECT_EQ(manifest.buckets[0].step.inputs[2].role, Role::kState);
  EXPECT_TRUE(manifest.buckets[0].step.inputs[2].donated);
  EXPECT_EQ(manifest.reference.labels, (std::vector<int32_t>{0}));
}

// Every member is needed: without it, reading fails and says so.
TEST(Manifest, MissesEachMember) {
  const json whole = Complete();
  const json flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    const json::json_pointer place(pointer);
    json lacking = whole;
    json& parent = lacking[place.parent_pointer()];
    if (!parent.is_object()) continue;
    const std::string first = place.to_string();
    const bool free_form = first.rfind("/model", 0) == 0 || first.rfind("/producer", 0) == 0;
    parent.erase(place.back());
    const std::string error = ErrorOf([&] { ParseManifest(lacking.dump()); });
    EXPECT_EQ(error.empty(), free_form) << pointer;
  }
}

// A value of another type is refused wherever it stands.
TEST(Manifest, RefusesWrongTypes) {
  const json whole = Complete();
  const json flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    const bool free_form = pointer.rfind("/model", 0) == 0 || pointer.rfind("/producer", 0) == 0;
    if (free_form) continue;
    for (const json& wrong : {json(nullptr), json({1}), json(-7)}) {
      json changed = whole;
      if (value == wrong || (value.is_number() && wrong.is_number())) continue;
      changed[json::json_pointer(pointer)] = wrong;
      const std::string error = ErrorOf([&] { ParseManifest(changed.dump()); });
      EXPECT_EQ(error.substr(0, 2), "4:") << pointer << " = " << wrong;
    }
  }
}

TEST(Manifest, RefusesContradictions) {
  const std::vector<std::pair<std::string, std::function<void(json&)>>> faults = {
      {"min <= default", [](json& m) { m["parameters"]["eta"]["default"] = 2.0; }},
      {"steps", [](json& m) { m["parameters"]["steps"]["min"] = 0; }},
      {"range", [](json& m) { m["sample"]["range"] = {0.0, 1.0}; }},
      {"shape", [](json& m) { m["sample"]["shape"] = {2, 3, 2}; }},
      {"names", [](json& m) { m["labels"]["names"] = {"cat"}; }},
      {"twice", [](json& m) { m["state"][1]["name"] = "x"; }},
      {"'x'", [](json& m) { m["state"][0]["name"] = "y"; }},
      {"-1", [](json& m) { m["state"][0]["shape"][0] = 2; }},
      {"donated", [](json& m) { m["programs"][0]["step"]["inputs"][0]["donated"] = true; }},
      {"donated", [](json& m) { m["programs"][0]["finish"]["inputs"][0]["donated"] = true; }},
      {"names no parameter", [](json& m) { m["programs"][0]["step"]["inputs"][1]["name"] = "x"; }},
      {"names no state", [](json& m) { m["programs"][0]["step"]["inputs"][2]["name"] = "y"; }},
      {"unknown role", [](json& m) { m["programs"][0]["step"]["inputs"][2]["role"] = "y"; }},
      {"cannot have", [](json& m) { m["programs"][0]["init"]["inputs"][0]["role"] = "index"; }},
      {"must be U32", [](json& m) { m["programs"][0]["init"]["inputs"][0]["shape"] = {3}; }},
      {"must be I32", [](json& m) { m["programs"][0]["step"]["inputs"][4]["shape"] = {3}; }},
      {"outputs", [](json& m) { m["programs"][0]["init"]["outputs"].erase(0); }},
      {"outputs", [](json& m) { m["programs"][0]["finish"]["outputs"][0]["shape"][1] = 9; }},
      {"another entry", [](json& m) { m["programs"].push_back(m["programs"][0]); }},
      {"must not be empty", [](json& m) { m["programs"] = json::array(); }},
      {"from 1 to", [](json& m) { m["programs"][0]["batch"] = 0; }},
      {"from 1 to", [](json& m) { m["programs"][0]["batch"] = UINT64_MAX; }},
      {"too large", [](json& m) { m["state"][1]["shape"] = {-1, 16'000'000, 16'000'000}; }},
      // 2^20 * 2^20 * 2^24 is 0 in 64 bits.
      {"too large", [](json& m) { m["state"][1]["shape"] = {-1, 1 << 20, 1 << 20, 1 << 24}; }},
      {"too many", [](json& m) { m["state"][1]["shape"] = {-1, 1, 1, 1, 1, 1, 1, 1, 1}; }},
      {"lacks 'eta'", [](json& m) { m["reference"]["parameters"] = json::object(); }},
      {"one label", [](json& m) { m["reference"]["count"] = 2; }},
      {"label", [](json& m) { m["labels"] = nullptr; }},
  };
  for (const auto& [message, fault] : faults) {
    json changed = Complete();
    fault(changed);
    const std::string error = ErrorOf([&] { ParseManifest(changed.dump()); });
    EXPECT_NE(error.find(message), std::string::npos) << message << " not in: " << error;
  }
}

}  // namespace
}  // namespace diffusion_sampler
