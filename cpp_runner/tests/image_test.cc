#include "image.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace diffusion_sampler {
namespace {

Images Ramp() { return {{2, 2, 1}, {-1.0F, 1.0F, 0.0F, 0.5F, -2.0F, 2.0F, 0.25F, -0.25F}}; }

TEST(Image, BytesRoundAsNumPyDoes) {
  EXPECT_EQ(ToByte(-1.0F), 0);
  EXPECT_EQ(ToByte(1.0F), 255);
  EXPECT_EQ(ToByte(0.0F), 128);  // 127.5 to even
  EXPECT_EQ(ToByte(-9.0F), 0);
  EXPECT_EQ(ToByte(9.0F), 255);
  EXPECT_EQ(ToByte(std::numeric_limits<float>::quiet_NaN()), 0);
}

TEST(Image, GridPlacesImagesInReadingOrder) {
  const Picture grid = GridPicture(Ramp(), 2, 1);
  EXPECT_EQ(grid.height, 4);
  EXPECT_EQ(grid.width, 7);
  EXPECT_EQ(grid.bytes[0], 255);          // margin
  EXPECT_EQ(grid.bytes[1 * 7 + 1], 0);    // first image, top left
  EXPECT_EQ(grid.bytes[1 * 7 + 2], 255);  // and to its right
  EXPECT_EQ(grid.bytes[1 * 7 + 4], 0);    // second image, clipped
  EXPECT_EQ(grid.bytes[2 * 7 + 5], 96);   // its last pixel, (−0.25 + 1)·127.5
}

TEST(Image, PngIsReadBackByLibpng) {
  const Picture picture = OnePicture(Ramp(), 0);
  const std::string encoded = EncodePng(picture, {{"seed", "7"}});
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, encoded.data(), encoded.size()), 0);
  EXPECT_EQ(image.width, 2U);
  image.format = PNG_FORMAT_GRAY;
  std::vector<uint8_t> bytes(4);
  ASSERT_NE(png_image_finish_read(&image, nullptr, bytes.data(), 0, nullptr), 0);
  EXPECT_EQ(bytes, picture.bytes);
  EXPECT_NE(encoded.find(std::string("seed\0007", 6)), std::string::npos);
}

TEST(Image, NpyHasItsHeader) {
  const std::string file = EncodeNpy(Ramp());
  EXPECT_EQ(file.substr(1, 5), "NUMPY");
  const size_t length =
      static_cast<unsigned char>(file[8]) + 256U * static_cast<unsigned char>(file[9]);
  EXPECT_EQ((10 + length) % 64, 0U);
  EXPECT_EQ(file.size(), 10 + length + 8 * sizeof(float));
  EXPECT_NE(file.find("'shape': (2, 2, 2, 1)"), std::string::npos);
  float last = 0.0F;
  std::memcpy(&last, file.data() + file.size() - sizeof(float), sizeof(float));
  EXPECT_EQ(last, -0.25F);
}

}  // namespace
}  // namespace diffusion_sampler
