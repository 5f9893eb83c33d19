// The command line, parsed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"

namespace diffusion_sampler {

enum class Command { kInfo, kSample, kVerify, kDevices };
enum class Format { kPng, kNpy };

struct Options {
  Command command = Command::kInfo;
  std::string artifact;
  bool json = false;
  bool quiet = false;

  std::string plugin;
  int device = 0;
  double memory_fraction = 0.0;
  bool cache = true;

  std::string out;
  std::optional<Format> format;
  int64_t count = 1;
  int64_t first = 0;
  std::optional<uint32_t> seed;
  std::vector<std::string> labels;
  std::map<std::string, double> parameters;
  std::optional<int64_t> batch;
  std::optional<int64_t> columns;  // of a grid; 0: about square
  int64_t strip = 0;               // steps between the pictures of a strip; 0: no strip
};

// Parses the command line. Returns nothing if all was said (help or version was asked for and
// printed). Throws Error(kUsage).
std::optional<Options> ParseOptions(int argc, const char* const* argv);

// The value of every parameter of the artifact: those given, else the defaults.
// Throws Error(kUsage) for a parameter that the artifact does not have or a value out of its range.
std::map<std::string, double> ResolveParameters(const Manifest& manifest,
                                                const std::map<std::string, double>& given);

// A label for each of `count` images: those given in turn, each a number, a name, `all` or `none`.
// Without any, all classes in turn. Throws Error(kUsage) for a label that the artifact does not
// have.
std::vector<int32_t> ResolveLabels(const Manifest& manifest, const std::vector<std::string>& given,
                                   int64_t count);

}  // namespace diffusion_sampler
