#include "image.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"

namespace diffusion_sampler {
namespace {

// libpng reports errors by calling a function that must not return.
[[noreturn]] void OnPngError(png_structp /*png*/, png_const_charp message) {
  throw Error(ExitCode::kFile, std::string("cannot encode a PNG: ") + message);
}

// Owns libpng's two structures.
class PngWriter {
 public:
  PngWriter()
      : png_(png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, OnPngError, nullptr)),
        info_(png_ == nullptr ? nullptr : png_create_info_struct(png_)) {
    if (info_ == nullptr) throw Error(ExitCode::kFile, "cannot encode a PNG: out of memory");
  }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;
  PngWriter(PngWriter&&) = delete;
  PngWriter& operator=(PngWriter&&) = delete;
  ~PngWriter() { png_destroy_write_struct(&png_, &info_); }
  [[nodiscard]] png_structp png() const { return png_; }
  [[nodiscard]] png_infop info() const { return info_; }

 private:
  png_structp png_;
  png_infop info_;
};

void Append(png_structp png, png_bytep bytes, size_t size) {
  static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<char*>(bytes), size);
}

}  // namespace

uint8_t ToByte(float value) {
  const float scaled = std::nearbyint((value + 1.0F) * 127.5F);
  // Written so that not-a-number becomes 0.
  return scaled > 0.0F ? static_cast<uint8_t>(std::min(scaled, 255.0F)) : uint8_t{0};
}

Picture OnePicture(const Images& images, int64_t index) {
  const auto [height, width, channels] = images.shape;
  Picture picture{height, width, channels, {}};
  const auto begin = images.values.begin() + index * images.size_of_one();
  std::transform(begin, begin + images.size_of_one(), std::back_inserter(picture.bytes), ToByte);
  return picture;
}

Picture GridPicture(const Images& images, int64_t columns, int64_t margin) {
  const auto [height, width, channels] = images.shape;
  const int64_t rows = (images.count() + columns - 1) / columns;
  Picture grid{
      rows * (height + margin) + margin, columns * (width + margin) + margin, channels, {}};
  grid.bytes.assign(static_cast<size_t>(grid.height * grid.width * channels), 255);
  for (int64_t index = 0; index < images.count(); ++index) {
    const Picture one = OnePicture(images, index);
    const int64_t top = margin + index / columns * (height + margin);
    const int64_t left = margin + index % columns * (width + margin);
    for (int64_t y = 0; y < height; ++y) {
      std::copy_n(one.bytes.begin() + y * width * channels, width * channels,
                  grid.bytes.begin() + ((top + y) * grid.width + left) * channels);
    }
  }
  return grid;
}

std::string EncodePng(const Picture& picture, const std::map<std::string, std::string>& text) {
  std::string encoded;
  const PngWriter writer;
  png_set_write_fn(writer.png(), &encoded, Append, nullptr);
  png_set_IHDR(writer.png(), writer.info(), static_cast<png_uint_32>(picture.width),
               static_cast<png_uint_32>(picture.height), 8,
               picture.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::map<std::string, std::string> owned = text;  // libpng's interface is not const
  std::vector<png_text> chunks;
  for (auto& [key, value] : owned) {
    png_text chunk{};
    chunk.compression = PNG_TEXT_COMPRESSION_NONE;
    chunk.key = const_cast<char*>(key.c_str());
    chunk.text = value.data();
    chunk.text_length = value.size();
    chunks.push_back(chunk);
  }
  png_set_text(writer.png(), writer.info(), chunks.data(), static_cast<int>(chunks.size()));
  png_write_info(writer.png(), writer.info());
  const int64_t stride = picture.width * picture.channels;
  for (int64_t y = 0; y < picture.height; ++y) {
    png_write_row(writer.png(), picture.bytes.data() + y * stride);
  }
  png_write_end(writer.png(), writer.info());
  return encoded;
}

std::string EncodeNpy(const Images& images) {
  const auto [height, width, channels] = images.shape;
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(images.count()) + ", " + std::to_string(height) + ", " +
                       std::to_string(width) + ", " + std::to_string(channels) + "), }";
  // Magic, version 1.0 and a two-byte length come before; the whole ends at a multiple of 64.
  constexpr size_t kBefore = 10;
  header.append((64 - (kBefore + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xFFU);
  file += static_cast<char>(header.size() >> 8U);
  file += header;
  file.append(reinterpret_cast<const char*>(images.values.data()),
              images.values.size() * sizeof(float));
  return file;
}

}  // namespace diffusion_sampler
