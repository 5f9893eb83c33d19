// The commands: info, sample, verify, devices.
#pragma once

#include <atomic>

#include "error.h"
#include "options.h"

namespace diffusion_sampler {

// Runs the command and prints its result. Throws Error. `cancel` may be set by a signal handler.
ExitCode RunCommand(const Options& options, const std::atomic<bool>& cancel);

}  // namespace diffusion_sampler
