#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "error.h"

namespace diffusion_sampler {
namespace {

constexpr const char* kFooter = R"(
Examples:
  diffusion-sampler info sampler.safetensors
  diffusion-sampler sample sampler.safetensors -o bag.png --label bag --seed 7
  diffusion-sampler sample sampler.safetensors -o all.png --count 80 --columns 8 --guidance-scale 2
  diffusion-sampler sample sampler.safetensors -o images.npy --count 500 --steps 25
  diffusion-sampler sample sampler.safetensors -o - > one.png
  diffusion-sampler verify sampler.safetensors --plugin cpu

Plugins: a PJRT plugin runs the programs. It is --plugin (a file, a platform or a package's name), else
the environment variable DIFFUSION_SAMPLER_PLUGIN, else the first that works of those installed in the
Python environment of this program or of $VIRTUAL_ENV, or in /usr/local/lib or /usr/lib: NVIDIA, AMD and TPU
plugins before CPU ones. `diffusion-sampler devices` shows them.

Exit codes: 0 done, 2 wrong usage, 3 a file cannot be read or written, 4 the artifact is damaged or wrong,
5 its version or platform is not supported, 6 no plugin works, 7 the device failed, 8 verify failed,
130 interrupted.)";

// A whole number, in decimal digits: CLI11 reads a leading zero as octal, and says of a number out
// of range that it cannot be converted.
CLI::Validator Whole(int64_t min, int64_t max) {
  return CLI::Validator(
      [min, max](std::string& text) {
        int64_t number = 0;
        const char* end = text.data() + text.size();
        const auto [rest, failed] = std::from_chars(text.data(), end, number);
        if (text.empty() || failed != std::errc() || rest != end || number < min || number > max) {
          return "must be a whole number from " + std::to_string(min) + " to " +
                 std::to_string(max) + "; got '" + text + "'";
        }
        text = std::to_string(number);
        return std::string();
      },
      "INT");
}

void AddArtifact(CLI::App* command, Options* options) {
  command->add_option("artifact", options->artifact, "file written by diffusion-eqx-export")
      ->required()
      ->type_name("FILE");
}

void AddJson(CLI::App* command, Options* options) {
  command->add_flag("--json", options->json, "print JSON for machines");
}

void AddPlugin(CLI::App* command, Options* options) {
  command->add_option("--plugin", options->plugin, "PJRT plugin: a file, or cpu, cuda, rocm, tpu")
      ->type_name("PLUGIN");
  command->add_option("--device", options->device, "number of the device to use")
      ->transform(Whole(0, 1'000'000));
  command
      ->add_option("--memory-fraction", options->memory_fraction,
                   "share of a GPU's memory to reserve at once (default: as needed)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("!--no-cache", options->cache, "compile afresh, and keep nothing");
}

std::optional<double> ToNumber(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') return std::nullopt;
  return number;
}

// "name=value" pairs of --set.
void AddSet(const std::vector<std::string>& pairs, std::map<std::string, double>* parameters) {
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    const auto number = ToNumber(equals == std::string::npos ? "" : pair.substr(equals + 1));
    if (!number) throw Error(ExitCode::kUsage, "--set needs NAME=NUMBER; got '" + pair + "'");
    (*parameters)[pair.substr(0, equals)] = *number;
  }
}

// Takes options of `command` that it does not know, but that have a number: --strength 0.3 is --set
// strength=0.3. Whether the artifact has such a parameter is asked later. Returns the other
// arguments.
std::vector<std::string> TakeNumbers(const std::vector<std::string>& arguments,
                                     const CLI::App& command,
                                     std::map<std::string, double>* parameters) {
  std::vector<std::string> others;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const size_t equals = argument.find('=');
    std::string name = argument.substr(0, equals);
    const bool unknown = name.size() > 2 && name.compare(0, 2, "--") == 0 &&
                         command.get_option_no_throw(name) == nullptr;
    const bool joined = equals != std::string::npos;
    const std::string value = joined                     ? argument.substr(equals + 1)
                              : i + 1 < arguments.size() ? arguments[i + 1]
                                                         : "";
    const auto number = unknown ? ToNumber(value) : std::nullopt;
    if (!number) {
      others.push_back(argument);
      continue;
    }
    name.erase(0, 2);
    std::replace(name.begin(), name.end(), '-', '_');
    (*parameters)[name] = *number;
    if (!joined) ++i;
  }
  return others;
}

std::string Number(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

int32_t ResolveLabel(const Labels& labels, const std::string& given) {
  if (given == "none") return static_cast<int32_t>(labels.null);
  const auto name = std::find(labels.names.begin(), labels.names.end(), given);
  if (name != labels.names.end()) return static_cast<int32_t>(name - labels.names.begin());
  char* end = nullptr;
  const int64_t number = std::strtoll(given.c_str(), &end, 10);
  if (given.empty() || *end != '\0' || number < 0 || number >= labels.count) {
    std::string names;
    for (const std::string& each : labels.names) names += ", " + each;
    throw Error(ExitCode::kUsage, "there is no label '" + given + "'; choose 0 to " +
                                      std::to_string(labels.count - 1) + names + ", all or none");
  }
  return static_cast<int32_t>(number);
}

}  // namespace

std::optional<Options> ParseOptions(int argc, const char* const* argv) {
  Options options;
  CLI::App app(
      "Draws images from an exported diffusion sampler, on any device that has a PJRT plugin.",
      "diffusion-sampler");
  app.set_version_flag("--version", std::string("diffusion-sampler ") + DIFFUSION_SAMPLER_VERSION);
  app.footer(kFooter);
  app.require_subcommand(1);

  CLI::App* info = app.add_subcommand("info", "show what an artifact holds");
  AddArtifact(info, &options);
  AddJson(info, &options);

  CLI::App* sample = app.add_subcommand("sample", "draw images");
  AddArtifact(sample, &options);
  sample
      ->add_option("-o,--out", options.out,
                   "file.png, file.npy, a folder/ for numbered pictures, or - for standard output")
      ->required()
      ->type_name("OUT");
  sample->add_option("-n,--count", options.count, "number of images")
      ->transform(Whole(1, 1'000'000))
      ->capture_default_str();
  sample
      ->add_option("--seed", options.seed,
                   "random seed, 0 to 4294967295 (default: drawn, and shown)")
      ->transform(Whole(0, 4'294'967'295));
  sample
      ->add_option("--label", options.labels,
                   "class by number or name, repeated over the images; all (the default), or none")
      ->delimiter(',')
      // One word each time, lest it take the artifact that follows for a label.
      ->allow_extra_args(false)
      ->type_name("LABEL");
  std::map<std::string, std::optional<double>> named = {
      {"steps", {}}, {"guidance_scale", {}}, {"eta", {}}, {"temperature", {}}};
  sample->add_option("--steps", named["steps"], "denoising steps");
  sample->add_option("--guidance-scale", named["guidance_scale"],
                     "strength of classifier-free guidance; 1 is the plain conditional prediction");
  sample->add_option("--eta", named["eta"], "share of fresh noise in each step");
  sample->add_option("--temperature", named["temperature"], "scale of the fresh noise");
  std::vector<std::string> set;
  sample->add_option("--set", set, "any other parameter that `info` lists; --NAME NUMBER does too")
      ->type_name("NAME=NUMBER");
  sample
      ->add_option("--columns", options.columns, "one picture of all images, with so many columns")
      ->expected(0, 1)
      ->default_str("0")
      ->transform(Whole(0, 10'000))
      ->type_name("COLUMNS");
  sample
      ->add_option("--strip", options.strip,
                   "one picture with a row for each image: how it looks after every K steps")
      ->transform(Whole(1, 1'000'000))
      ->type_name("K");
  std::string format;
  sample->add_option("--format", format, "png or npy, where OUT does not say")
      ->check(CLI::IsMember({"png", "npy"}));
  sample->add_option("--first", options.first, "number of the first image: go on where a run ended")
      ->transform(Whole(0, 1'000'000'000));
  sample->add_option("--batch", options.batch, "use programs for batches of this size only")
      ->transform(Whole(1, 1'000'000));
  AddPlugin(sample, &options);
  AddJson(sample, &options);
  sample->add_flag("-q,--quiet", options.quiet, "show no progress");

  CLI::App* verify = app.add_subcommand("verify", "compare with what Python drew when exporting");
  AddArtifact(verify, &options);
  AddPlugin(verify, &options);
  AddJson(verify, &options);

  CLI::App* devices = app.add_subcommand("devices", "list plugins and their devices");
  devices->add_option("--plugin", options.plugin, "PJRT plugin: a file, or cpu, cuda, rocm, tpu");
  AddJson(devices, &options);

  try {
    std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
    if (!arguments.empty() && arguments.front() == "sample") {
      arguments = TakeNumbers(arguments, *sample, &options.parameters);
    }
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      app.exit(error, std::cout, std::cerr);
      return std::nullopt;
    }
    throw Error(ExitCode::kUsage, std::string(error.what()) + "; see diffusion-sampler --help");
  }
  const std::map<CLI::App*, Command> commands = {{info, Command::kInfo},
                                                 {sample, Command::kSample},
                                                 {verify, Command::kVerify},
                                                 {devices, Command::kDevices}};
  options.command = commands.at(app.get_subcommands().front());
  if (!format.empty()) options.format = format == "png" ? Format::kPng : Format::kNpy;
  for (const auto& [name, value] : named) {
    if (value) options.parameters[name] = *value;
  }
  AddSet(set, &options.parameters);
  return options;
}

std::map<std::string, double> ResolveParameters(const Manifest& manifest,
                                                const std::map<std::string, double>& given) {
  std::map<std::string, double> values;
  for (const Parameter& parameter : manifest.parameters) values[parameter.name] = parameter.value;
  for (const auto& [name, value] : given) {
    const Parameter* parameter = manifest.FindParameter(name);
    if (parameter == nullptr) {
      std::string names;
      for (const Parameter& each : manifest.parameters) names += " " + each.name;
      throw Error(ExitCode::kUsage,
                  "this artifact has no parameter '" + name + "'; it has" + names);
    }
    // Written so that not-a-number is refused.
    if (!(parameter->min <= value && value <= parameter->max)) {
      throw Error(ExitCode::kUsage, name + " must be from " + Number(parameter->min) + " to " +
                                        Number(parameter->max) + "; got " + Number(value));
    }
    if (parameter->integer && value != static_cast<double>(static_cast<int64_t>(value))) {
      throw Error(ExitCode::kUsage, name + " must be a whole number; got " + Number(value));
    }
    values[name] = value;
  }
  return values;
}

std::vector<int32_t> ResolveLabels(const Manifest& manifest, const std::vector<std::string>& given,
                                   int64_t count) {
  if (!manifest.labels) {
    if (given.empty()) return {};
    throw Error(ExitCode::kUsage, "this artifact has no labels: its model is unconditional");
  }
  std::vector<int32_t> cycle;
  for (const std::string& label : given.empty() ? std::vector<std::string>{"all"} : given) {
    if (label == "all") {
      for (int64_t each = 0; each < manifest.labels->count; ++each) {
        cycle.push_back(static_cast<int32_t>(each));
      }
    } else {
      cycle.push_back(ResolveLabel(*manifest.labels, label));
    }
  }
  std::vector<int32_t> labels;
  for (int64_t image = 0; image < count; ++image) {
    labels.push_back(cycle[static_cast<size_t>(image) % cycle.size()]);
  }
  return labels;
}

}  // namespace diffusion_sampler
