// What can go wrong, and the exit code that says so.
#pragma once

#include <stdexcept>
#include <string>

namespace diffusion_sampler {

// The program's exit codes; documented in --help and README.md.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 2,
  kFile = 3,
  kArtifact = 4,
  kUnsupported = 5,
  kPlugin = 6,
  kDevice = 7,
  kVerify = 8,
  kInterrupted = 130,
};

// Carries one clear line: what was wrong, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

}  // namespace diffusion_sampler
