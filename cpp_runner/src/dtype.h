// The element types of an artifact.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "pjrt_c_api.h"

namespace diffusion_sampler {

// An element type: safetensors' name, its size in bytes, and PJRT's number for it.
struct Dtype {
  std::string_view name;
  size_t size;
  PJRT_Buffer_Type pjrt;
  bool operator==(const Dtype& other) const { return name == other.name; }
  bool operator!=(const Dtype& other) const { return name != other.name; }
};

inline constexpr Dtype kDtypes[] = {
    {"F32", 4, PJRT_Buffer_Type_F32},   {"F16", 2, PJRT_Buffer_Type_F16},
    {"BF16", 2, PJRT_Buffer_Type_BF16}, {"F64", 8, PJRT_Buffer_Type_F64},
    {"I32", 4, PJRT_Buffer_Type_S32},   {"I64", 8, PJRT_Buffer_Type_S64},
    {"U32", 4, PJRT_Buffer_Type_U32},   {"U8", 1, PJRT_Buffer_Type_U8},
    {"BOOL", 1, PJRT_Buffer_Type_PRED},
};

// The type of that name, or nothing.
inline std::optional<Dtype> FindDtype(std::string_view name) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.name == name) return dtype;
  }
  return std::nullopt;
}

}  // namespace diffusion_sampler
