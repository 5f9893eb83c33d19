#include "sha256.h"

#include <sys/types.h>
// libmd's header needs the types above.
#include <sha2.h>

#include <array>
#include <cstdint>

namespace diffusion_sampler {

std::string Sha256(std::string_view bytes) {
  std::array<char, SHA256_DIGEST_STRING_LENGTH> text{};
  SHA256Data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), text.data());
  return {text.data()};
}

}  // namespace diffusion_sampler
