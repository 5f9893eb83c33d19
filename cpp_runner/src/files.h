// Files: read by mapping, written so that nobody ever sees half of one.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace diffusion_sampler {

// A whole file, mapped read-only. Its bytes stay where they are for as long as the object lives.
class MappedFile {
 public:
  // Throws Error(kFile) if the file cannot be read.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::string_view bytes() const {
    return {static_cast<const char*>(address_), size_};
  }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

// Writes a file under a temporary name and renames it. A symbolic link stays, and the file that it
// points to is written; a pipe or a device is written into. Throws Error(kFile).
void WriteFileAtomically(const std::filesystem::path& path, std::string_view bytes);

// Writes to standard output. Throws Error(kFile), also when the reader has gone away.
void WriteToStdout(std::string_view bytes);

}  // namespace diffusion_sampler
