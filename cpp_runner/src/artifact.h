// An artifact, opened: mapped, parsed, and every rule of FORMAT.md checked.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "files.h"
#include "manifest.h"
#include "safetensors.h"

namespace diffusion_sampler {

class Artifact {
 public:
  // Opens the file and checks everything, digests included. Throws Error: kFile if it cannot be
  // read, kArtifact if it is damaged or wrong, kUnsupported if it is of another format version.
  static Artifact Open(const std::filesystem::path& path);

  // Checks the bytes of a file that stay valid for as long as the result does.
  static Artifact FromBytes(std::string_view bytes);

  [[nodiscard]] const Manifest& manifest() const { return manifest_; }
  [[nodiscard]] const Tensor& tensor(const std::string& name) const {
    return container_.tensors.find(name)->second;
  }
  [[nodiscard]] const Container& container() const { return container_; }

 private:
  Artifact(Container container, Manifest manifest)
      : container_(std::move(container)), manifest_(std::move(manifest)) {}

  std::vector<MappedFile> file_;  // empty if the bytes are somebody else's
  Container container_;
  Manifest manifest_;
};

}  // namespace diffusion_sampler
