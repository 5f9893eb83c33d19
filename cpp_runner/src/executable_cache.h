// Compiled programs kept on this machine, so that the next start need not compile.
//
// A compiled program is only fit for the plugin file, the options and the processor that it was
// made with, so all of these are in its key; it never becomes part of an artifact. A damaged entry
// is compiled afresh.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "pjrt.h"

namespace diffusion_sampler {

class ExecutableCache {
 public:
  // `folder` empty: nothing is kept.
  explicit ExecutableCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // $XDG_CACHE_HOME/diffusion-sampler, else ~/.cache/diffusion-sampler, else none.
  static std::filesystem::path DefaultFolder();

  // The compiled form of `stablehlo`; `hit` tells whether it was there. Throws Error(kDevice).
  [[nodiscard]] Executable Get(const Client& client, std::string_view stablehlo, bool* hit) const;

 private:
  void Store(const std::filesystem::path& entry, const Executable& executable) const;

  std::filesystem::path folder_;
};

}  // namespace diffusion_sampler
