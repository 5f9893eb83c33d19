// diffusion-sampler: draws images from an exported diffusion sampler.

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.h"
#include "error.h"
#include "options.h"

namespace {

using diffusion_sampler::Error;
using diffusion_sampler::ExitCode;

std::atomic<bool> cancel{false};

// The first signal lets the running step end; a second one of the same kind ends the process at
// once.
void OnSignal(int number) {
  cancel = true;
  std::signal(number, SIG_DFL);
}

// One line, whatever the message holds: files' contents can get into messages.
std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  return text;
}

int Report(ExitCode code, const std::string& message, bool json) {
  const std::string line = OneLine(message);
  std::cerr << "diffusion-sampler: " << line << "\n";
  if (json) {
    const nlohmann::ordered_json report = {
        {"error", {{"code", static_cast<int>(code)}, {"message", line}}}};
    std::cout << report.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  }
  return static_cast<int>(code);
}

int Run(int argc, char** argv) {
  bool json = false;
  try {
    const auto options = diffusion_sampler::ParseOptions(argc, argv);
    if (!options) return 0;
    json = options->json;
    return static_cast<int>(diffusion_sampler::RunCommand(*options, cancel));
  } catch (const Error& error) {
    return Report(error.code(), error.what(), json);
  } catch (const std::bad_alloc&) {
    return Report(ExitCode::kDevice, "out of memory; ask for fewer images at once (--batch)", json);
  } catch (const std::exception& error) {
    return Report(ExitCode::kDevice, std::string("unexpected: ") + error.what(), json);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  // A reader that goes away is reported as a failed write.
  std::signal(SIGPIPE, SIG_IGN);
  // So is a file that grows beyond what may be written.
  std::signal(SIGXFSZ, SIG_IGN);
  const int code = Run(argc, argv);
  std::cout.flush();
  std::cerr.flush();
  // Plugins own threads that need not outlive us: no destructors, no race at exit.
  std::_Exit(code);
}
