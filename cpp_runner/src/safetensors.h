// The container of FORMAT.md, section 1.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "dtype.h"

namespace diffusion_sampler {

// One tensor, in the file's memory.
struct Tensor {
  Dtype dtype;
  std::vector<int64_t> shape;
  std::string_view bytes;
};

// The tensors (padding left out) and the string metadata of a container.
struct Container {
  std::map<std::string, Tensor, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

// Parses `text` as JSON, refusing nesting beyond what an artifact needs (a parser's stack is
// finite), repeated members and invalid UTF-8. Throws Error(kArtifact); `what` names the text.
nlohmann::json ParseJson(std::string_view text, const std::string& what);

// Reads a container; every rule of the format is checked. Throws Error(kArtifact).
Container ParseContainer(std::string_view file);

}  // namespace diffusion_sampler
