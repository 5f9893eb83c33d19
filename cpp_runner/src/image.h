// Images: from floats in [-1, 1] to PNG and NumPy files.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace diffusion_sampler {

// A batch of float images (count, height, width, channels), channels 1 or 3, in [-1, 1].
struct Images {
  std::array<int64_t, 3> shape;  // height, width, channels
  std::vector<float> values;

  [[nodiscard]] int64_t size_of_one() const { return shape[0] * shape[1] * shape[2]; }
  [[nodiscard]] int64_t count() const {
    return static_cast<int64_t>(values.size()) / size_of_one();
  }
};

// One picture of bytes, rows from the top.
struct Picture {
  int64_t height;
  int64_t width;
  int64_t channels;
  std::vector<uint8_t> bytes;
};

// A float in [-1, 1] as a byte: round((x + 1)·127.5), halves to even, as NumPy rounds; clipped, and
// 0 for what is not a number.
uint8_t ToByte(float value);

// Image `index` of a batch.
Picture OnePicture(const Images& images, int64_t index);

// The images side by side on white with a margin, row by row.
Picture GridPicture(const Images& images, int64_t columns, int64_t margin = 2);

// A PNG file's bytes, with `text` as tEXt chunks. Throws Error(kFile).
std::string EncodePng(const Picture& picture, const std::map<std::string, std::string>& text);

// A NumPy file's bytes: float32 (count, height, width, channels).
std::string EncodeNpy(const Images& images);

}  // namespace diffusion_sampler
