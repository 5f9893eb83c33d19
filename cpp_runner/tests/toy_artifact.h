// A small artifact built in memory, for tests that break it in every way.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace diffusion_sampler::testing {

// An artifact's parts; `Bytes` puts them together with correct digests, whatever they say.
struct ToyArtifact {
  ToyArtifact();

  nlohmann::json manifest;
  std::map<std::string, std::string> weights;  // F32 tensors by name, without "weights/"
  std::map<std::string, std::string> programs = {{"init", "init"}, {"step", "step"}};
  std::string format = "diffusion_eqx.sampler";
  std::string version = "1";

  [[nodiscard]] std::string Bytes() const;
};

// A container of a header's text and data, padded as the format asks.
std::string MakeContainer(std::string text, const std::string& data);
std::string MakeContainer(const nlohmann::ordered_json& header, const std::string& data);

// The code and message of the Error that `action` throws, as "code: message"; empty if it throws
// none.
template <typename Action>
std::string ErrorOf(Action&& action);

}  // namespace diffusion_sampler::testing

#include "error.h"

template <typename Action>
std::string diffusion_sampler::testing::ErrorOf(Action&& action) {
  try {
    action();
  } catch (const diffusion_sampler::Error& error) {
    return std::to_string(static_cast<int>(error.code())) + ": " + error.what();
  }
  return "";
}
