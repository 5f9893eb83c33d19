// SHA-256, by libmd.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace diffusion_sampler {

// The digest of `bytes` in lower-case hexadecimal.
std::string Sha256(std::string_view bytes);

}  // namespace diffusion_sampler
