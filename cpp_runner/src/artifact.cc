#include "artifact.h"

#include <utility>

#include "error.h"
#include "sha256.h"

namespace diffusion_sampler {
namespace {

constexpr std::string_view kFormat = "diffusion_eqx.sampler";
constexpr std::string_view kVersion = "1";

[[noreturn]] void Fail(const std::string& message) { throw Error(ExitCode::kArtifact, message); }

const std::string& Metadata(const Container& container, const char* name) {
  const auto found = container.metadata.find(name);
  if (found == container.metadata.end()) {
    Fail(std::string("the file is no sampler artifact: its metadata lacks '") + name + "'");
  }
  return found->second;
}

const Tensor& Find(const Container& container, const std::string& name) {
  const auto found = container.tensors.find(name);
  if (found == container.tensors.end()) Fail("the artifact lacks the tensor '" + name + "'");
  return found->second;
}

void CheckProgram(const Container& container, const Program& program) {
  const Tensor& code = Find(container, program.tensor);
  if (code.dtype.name != "U8" || code.shape.size() != 1 || code.bytes.empty()) {
    Fail("the tensor '" + program.tensor + "' does not hold a program");
  }
  for (const Argument& input : program.inputs) {
    if (input.role != Role::kWeight) continue;
    const Tensor& weight = Find(container, "weights/" + input.name);
    if (weight.dtype != input.dtype || weight.shape != input.shape) {
      Fail("the weight '" + input.name + "' is " + std::string(weight.dtype.name) + " " +
           ShapeText(weight.shape) + ", but a program takes " + std::string(input.dtype.name) +
           " " + ShapeText(input.shape));
    }
  }
}

void CheckReference(const Container& container, const Manifest& manifest) {
  std::vector<int64_t> noise = manifest.state[0].shape;
  noise[0] = manifest.reference.count;
  const auto [height, width, channels] = manifest.shape;
  const std::vector<int64_t> image = {manifest.reference.count, height, width, channels};
  for (const auto& [name, shape] :
       {std::pair("reference/noise", noise), {"reference/image", image}}) {
    const Tensor& tensor = Find(container, name);
    if (tensor.dtype.name != "F32" || tensor.shape != shape) {
      Fail(std::string("the tensor '") + name + "' must be F32 " + ShapeText(shape));
    }
  }
}

void CheckDigests(const Container& container, const Manifest& manifest) {
  for (const auto& [name, digest] : manifest.digests) Find(container, name);
  for (const auto& [name, tensor] : container.tensors) {
    const auto found = manifest.digests.find(name);
    if (found == manifest.digests.end())
      Fail("the manifest has no digest of the tensor '" + name + "'");
    if (Sha256(tensor.bytes) != found->second) {
      Fail("the tensor '" + name +
           "' is damaged: its SHA-256 is not the one recorded; get the file anew");
    }
  }
}

}  // namespace

Artifact Artifact::Open(const std::filesystem::path& path) {
  MappedFile file(path);
  Artifact artifact = FromBytes(file.bytes());
  artifact.file_.push_back(std::move(file));
  return artifact;
}

Artifact Artifact::FromBytes(std::string_view bytes) {
  Container container = ParseContainer(bytes);
  if (Metadata(container, "format") != kFormat) {
    Fail("the file is no sampler artifact: its format is '" + Metadata(container, "format") +
         "', not '" + std::string(kFormat) + "'");
  }
  if (Metadata(container, "format_version") != kVersion) {
    throw Error(ExitCode::kUnsupported,
                "the artifact has format version '" + Metadata(container, "format_version") +
                    "'; this program reads version " + std::string(kVersion));
  }
  const std::string& text = Metadata(container, "manifest");
  if (Sha256(text) != Metadata(container, "manifest_sha256")) {
    Fail("the manifest is damaged: its SHA-256 is not the one recorded; get the file anew");
  }
  Manifest manifest = ParseManifest(text);
  for (const Bucket& bucket : manifest.buckets) {
    for (const Program* program : {&bucket.init, &bucket.step, &bucket.finish}) {
      CheckProgram(container, *program);
    }
  }
  CheckReference(container, manifest);
  CheckDigests(container, manifest);
  return {std::move(container), std::move(manifest)};
}

}  // namespace diffusion_sampler
