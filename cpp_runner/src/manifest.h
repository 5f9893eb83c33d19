// The manifest of FORMAT.md, section 3, as typed values.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dtype.h"

namespace diffusion_sampler {

enum class Role { kWeight, kSeed, kFirst, kState, kIndex, kParameter, kLabel, kImage };

// One array that a program takes or returns.
struct Argument {
  Role role;
  std::string name;
  Dtype dtype;
  std::vector<int64_t> shape;
  bool donated = false;
};

struct Program {
  std::string tensor;
  std::vector<Argument> inputs;
  std::vector<Argument> outputs;
};

// The three programs for one platform and batch size.
struct Bucket {
  std::string platform;
  int64_t batch;
  Program init;
  Program step;
  Program finish;
};

// A number that may be chosen at run time.
struct Parameter {
  std::string name;
  bool integer;
  double value;
  double min;
  double max;
  std::string about;
};

struct Labels {
  int64_t count;
  int64_t null;
  std::vector<std::string> names;
};

struct Tolerance {
  double noise;
  double image;
};

// A sample that Python drew, to compare with.
struct Reference {
  uint32_t seed;
  int64_t steps;
  std::map<std::string, double> parameters;
  std::vector<int32_t> labels;
  int64_t count;
  Tolerance cpu;
  Tolerance other;
};

struct Manifest {
  std::string name;
  std::string sampler;
  std::array<int64_t, 3> shape;  // height, width, channels
  std::vector<Parameter> parameters;
  std::optional<Labels> labels;
  std::vector<Argument> state;  // shapes with -1 for the batch
  std::vector<Bucket> buckets;
  Reference reference;
  std::map<std::string, std::string, std::less<>> digests;
  nlohmann::json model;     // provenance, to be shown
  nlohmann::json producer;  // likewise

  // The parameter of that name, or null.
  [[nodiscard]] const Parameter* FindParameter(std::string_view parameter) const;
};

// Reads a manifest and checks all that can be checked without the tensors. Throws Error(kArtifact).
Manifest ParseManifest(std::string_view text);

// A shape as "[2, 3]".
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace diffusion_sampler
