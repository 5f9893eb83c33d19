#include "commands.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <sstream>

#include "artifact.h"
#include "executable_cache.h"
#include "files.h"
#include "image.h"
#include "pjrt.h"
#include "plugin_search.h"
#include "progress.h"
#include "sampler.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Opens the first plugin that works. What was tried in vain is told only if none does.
std::unique_ptr<Client> OpenClient(const Options& options) {
  const std::vector<Plugin> plugins = SelectPlugins(options.plugin, PluginFolders());
  std::string failures;
  for (const Plugin& plugin : plugins) {
    try {
      PreloadCudaLibraries(plugin);
      return std::make_unique<Client>(Api::Load(plugin.path),
                                      ClientOptions{options.device, options.memory_fraction});
    } catch (const Error& error) {
      failures += (failures.empty() ? "" : " | ") + std::string(error.what());
    }
  }
  throw Error(ExitCode::kPlugin, failures);
}

ExecutableCache OpenCache(const Options& options) {
  return ExecutableCache(options.cache ? ExecutableCache::DefaultFolder() : fs::path());
}

Json ParametersJson(const Manifest& manifest, const std::map<std::string, double>& values) {
  Json json = Json::object();
  for (const Parameter& parameter : manifest.parameters) {
    const double value = values.at(parameter.name);
    if (parameter.integer) {
      json[parameter.name] = static_cast<int64_t>(value);
    } else {
      json[parameter.name] = value;
    }
  }
  return json;
}

void Row(const std::string& name, const std::string& value) {
  std::printf("%-18s %s\n", name.c_str(), value.c_str());
}

std::string Number(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

// A member that is shown but not relied upon: whatever JSON it is, as text.
std::string Shown(const nlohmann::json& object, const char* member) {
  const auto found = object.find(member);
  if (found == object.end()) return "?";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

Json InfoJson(const Artifact& artifact) {
  const Manifest& manifest = artifact.manifest();
  Json json = {{"name", manifest.name},
               {"model", manifest.model},
               {"producer", manifest.producer},
               {"sampler", manifest.sampler},
               {"shape", manifest.shape}};
  for (const Parameter& parameter : manifest.parameters) {
    json["parameters"][parameter.name] = {{"default", parameter.value},
                                          {"min", parameter.min},
                                          {"max", parameter.max},
                                          {"about", parameter.about}};
  }
  json["labels"] = manifest.labels ? Json(manifest.labels->names) : Json(nullptr);
  for (const Bucket& bucket : manifest.buckets) {
    json["programs"].push_back({{"platform", bucket.platform}, {"batch", bucket.batch}});
  }
  return json;
}

ExitCode Info(const Options& options) {
  const Artifact artifact = Artifact::Open(options.artifact);
  if (options.json) {
    std::cout << InfoJson(artifact).dump(1) << "\n";
    return ExitCode::kOk;
  }
  const Manifest& manifest = artifact.manifest();
  Row("name", manifest.name);
  Row("model",
      Shown(manifest.model, "class") + ", " + Shown(manifest.model, "parameters") + " parameters");
  Row("moving average", Shown(manifest.model, "ema"));
  Row("sampler", manifest.sampler);
  Row("image", std::to_string(manifest.shape[0]) + " x " + std::to_string(manifest.shape[1]) +
                   " x " + std::to_string(manifest.shape[2]));
  for (const Parameter& parameter : manifest.parameters) {
    Row(parameter.name, Number(parameter.value) + " (" + Number(parameter.min) + " to " +
                            Number(parameter.max) + "): " + parameter.about);
  }
  if (manifest.labels) {
    std::string names;
    for (const std::string& name : manifest.labels->names)
      names += (names.empty() ? "" : ", ") + name;
    Row("labels", names);
  }
  std::map<std::string, std::set<int64_t>> batches;
  for (const Bucket& bucket : manifest.buckets) batches[bucket.platform].insert(bucket.batch);
  for (const auto& [platform, sizes] : batches) {
    std::string text;
    for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
    Row("batches on " + platform, text);
  }
  size_t weights = 0;
  size_t programs = 0;
  for (const auto& [name, tensor] : artifact.container().tensors) {
    if (name.rfind("weights/", 0) == 0) weights += tensor.bytes.size();
    if (name.rfind("programs/", 0) == 0) programs += tensor.bytes.size();
  }
  Row("size", std::to_string(weights) + " bytes of weights, " + std::to_string(programs) +
                  " bytes of programs");
  Row("made with", "diffusion_eqx " + Shown(manifest.producer, "diffusion_eqx") + ", jax " +
                       Shown(manifest.producer, "jax") + ", StableHLO " +
                       Shown(manifest.producer, "stablehlo"));
  return ExitCode::kOk;
}

// Where and as what the images are to be written; decided before any work is done.
struct Destination {
  enum class Kind { kStdout, kFile, kNumbered };
  Kind kind;
  Format format;
  fs::path path;

  // The file of image `number`, for numbered pictures.
  [[nodiscard]] fs::path Numbered(int64_t number) const {
    char digits[24];
    std::snprintf(digits, sizeof(digits), "%04lld", static_cast<long long>(number));
    if (!path.has_filename()) return path / (std::string(digits) + ".png");
    return path.parent_path() / (path.stem().string() + "_" + digits + path.extension().string());
  }
};

Destination ChooseDestination(const Options& options) {
  const fs::path path = options.out;
  const bool single = options.count == 1 || options.columns || options.strip > 0;
  if (options.columns && options.strip > 0) {
    throw Error(ExitCode::kUsage, "--columns and --strip exclude each other");
  }
  const std::string extension = path.extension().string();
  Format format = extension == ".npy" ? Format::kNpy : Format::kPng;
  if (options.format) format = *options.format;
  if (options.out == "-") {
    if (format == Format::kPng && !single) {
      throw Error(ExitCode::kUsage,
                  "several images make several pictures: add --columns for one on standard output");
    }
    if (options.json) {
      throw Error(ExitCode::kUsage, "--json and images cannot both go to standard output");
    }
    return {Destination::Kind::kStdout, format, path};
  }
  std::error_code ignored;
  const bool folder = !path.has_filename() || fs::is_directory(path, ignored);
  if (!folder && extension != ".png" && extension != ".npy" && !options.format) {
    throw Error(ExitCode::kUsage,
                "OUT must end in .png, .npy or /, or --format must say what it is; "
                "got " +
                    options.out);
  }
  if (folder && (format == Format::kNpy || options.columns || options.strip > 0)) {
    throw Error(ExitCode::kUsage, "one file needs a file's name; got the folder " + options.out);
  }
  const fs::path parent = folder ? path : path.parent_path();
  std::error_code failed;
  if (!parent.empty()) fs::create_directories(parent, failed);
  if (failed) {
    throw Error(ExitCode::kFile,
                "cannot make the folder " + parent.string() + ": " + failed.message());
  }
  if (folder) return {Destination::Kind::kNumbered, format, path / ""};
  const bool one = format == Format::kNpy || single;
  return {one ? Destination::Kind::kFile : Destination::Kind::kNumbered, format, path};
}

// Text chunks that say how a picture came about.
std::map<std::string, std::string> PngText(const Manifest& manifest, const Request& request) {
  std::map<std::string, std::string> text = {
      {"Software", std::string("diffusion-sampler ") + DIFFUSION_SAMPLER_VERSION},
      {"model", manifest.name},
      {"sampler", manifest.sampler},
      {"seed", std::to_string(request.seed)}};
  for (const auto& [name, value] : request.parameters) text[name] = Number(value);
  return text;
}

// Rows of images, columns of snapshots.
Images StripOf(const Drawn& drawn) {
  Images strip{drawn.images.shape, {}};
  for (int64_t image = 0; image < drawn.images.count(); ++image) {
    for (const Images& snapshot : drawn.snapshots) {
      const auto begin = snapshot.values.begin() + image * snapshot.size_of_one();
      strip.values.insert(strip.values.end(), begin, begin + snapshot.size_of_one());
    }
  }
  return strip;
}

// Writes the images. Returns the names of the files.
std::vector<std::string> WriteImages(const Options& options, const Destination& destination,
                                     const Manifest& manifest, const Request& request,
                                     const Drawn& drawn) {
  std::map<std::string, std::string> text = PngText(manifest, request);
  const auto label_text = [&](int64_t image) {
    if (request.labels.empty()) return;
    const auto label = static_cast<size_t>(request.labels[static_cast<size_t>(image)]);
    const auto& names = manifest.labels->names;
    text["label"] = label < names.size() ? names[label] : "none";
  };
  if (destination.kind == Destination::Kind::kNumbered) {
    std::vector<std::string> files;
    for (int64_t image = 0; image < drawn.images.count(); ++image) {
      label_text(image);
      text["image"] = std::to_string(request.first + image);
      const fs::path path = destination.Numbered(request.first + image);
      WriteFileAtomically(path, EncodePng(OnePicture(drawn.images, image), text));
      files.push_back(path.string());
    }
    return files;
  }
  std::string bytes;
  if (destination.format == Format::kNpy) {
    bytes = EncodeNpy(drawn.images);
  } else if (options.strip > 0) {
    bytes =
        EncodePng(GridPicture(StripOf(drawn), static_cast<int64_t>(drawn.snapshots.size())), text);
  } else if (options.columns) {
    const auto square =
        static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(request.count))));
    bytes = EncodePng(GridPicture(drawn.images, *options.columns > 0 ? *options.columns : square),
                      text);
  } else {
    label_text(0);
    bytes = EncodePng(OnePicture(drawn.images, 0), text);
  }
  if (destination.kind == Destination::Kind::kStdout) {
    WriteToStdout(bytes);
    return {};
  }
  WriteFileAtomically(destination.path, bytes);
  return {destination.path.string()};
}

ExitCode Sample(const Options& options, const std::atomic<bool>& cancel) {
  const Clock::time_point start = Clock::now();
  const Destination destination = ChooseDestination(options);
  const Artifact artifact = Artifact::Open(options.artifact);
  const Manifest& manifest = artifact.manifest();
  Request request;
  request.parameters = ResolveParameters(manifest, options.parameters);
  request.labels = ResolveLabels(manifest, options.labels, options.count);
  request.seed = options.seed ? *options.seed : std::random_device{}();
  request.first = options.first;
  request.count = options.count;
  request.batch = options.batch;
  request.snapshot_every = options.strip;
  const double open_ms = MillisecondsSince(start);

  const Clock::time_point plugin_start = Clock::now();
  const std::unique_ptr<Client> client = OpenClient(options);
  const double plugin_ms = MillisecondsSince(plugin_start);
  const ExecutableCache cache = OpenCache(options);
  Sampler sampler(artifact, *client, cache);
  Drawn drawn;
  {
    Progress progress(sampler.CountSteps(request), request.count, options.quiet || options.json);
    drawn = sampler.Draw(request, [&] { progress.Step(); }, cancel);
  }
  const Clock::time_point write_start = Clock::now();
  const auto files = WriteImages(options, destination, manifest, request, drawn);
  const double write_ms = MillisecondsSince(write_start);
  const double total_ms = MillisecondsSince(start);

  const Timings& t = sampler.timings();
  if (options.json) {
    struct rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const Json report = {{"seed", request.seed},
                         {"first", request.first},
                         {"count", request.count},
                         {"labels", request.labels},
                         {"parameters", ParametersJson(manifest, request.parameters)},
                         {"files", files},
                         {"plugin", client->api().path().string()},
                         {"platform", client->platform()},
                         {"platform_version", client->platform_version()},
                         {"milliseconds",
                          {{"open", open_ms},
                           {"plugin", plugin_ms},
                           {"upload", t.upload},
                           {"compile", t.compile},
                           {"init", t.init},
                           {"steps", t.steps},
                           {"finish", t.finish},
                           {"write", write_ms},
                           {"first_image", open_ms + plugin_ms + t.first_image},
                           {"total", total_ms}}},
                         {"steps_run", t.steps_run},
                         {"programs", t.programs},
                         {"programs_from_cache", t.cache_hits},
                         {"peak_memory_bytes", static_cast<int64_t>(usage.ru_maxrss) * 1024}};
    std::cout << report.dump(1) << "\n";
  } else if (!options.quiet && destination.kind != Destination::Kind::kStdout) {
    std::cerr << "wrote " << files.front();
    if (files.size() > 1) std::cerr << " … " << files.back();
    std::cerr << " (seed " << request.seed << ", " << client->platform() << ", "
              << Number(std::round(total_ms) / 1000) << " s)\n";
  }
  return ExitCode::kOk;
}

double LargestDifference(const std::vector<float>& found, std::string_view expected_bytes) {
  // Not-a-number anywhere must fail, so it counts as infinitely far off.
  double largest = 0.0;
  for (size_t i = 0; i < found.size(); ++i) {
    float expected = 0.0F;
    std::memcpy(&expected, expected_bytes.data() + i * sizeof(float), sizeof(float));
    const double difference =
        std::abs(static_cast<double>(found[i]) - static_cast<double>(expected));
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}

ExitCode Verify(const Options& options, const std::atomic<bool>& cancel) {
  const Artifact artifact = Artifact::Open(options.artifact);
  const Reference& reference = artifact.manifest().reference;
  const std::unique_ptr<Client> client = OpenClient(options);
  const ExecutableCache cache = OpenCache(options);
  Sampler sampler(artifact, *client, cache);
  Request request;
  request.seed = reference.seed;
  request.count = reference.count;
  request.labels = reference.labels;
  std::map<std::string, double> given = reference.parameters;
  given["steps"] = static_cast<double>(reference.steps);
  try {
    request.parameters = ResolveParameters(artifact.manifest(), given);
  } catch (const Error& error) {
    // Nobody typed these numbers: they stand in the file.
    throw Error(ExitCode::kArtifact,
                std::string("its reference sample does not fit: ") + error.what());
  }
  const Drawn drawn = sampler.Draw(request, [] {}, cancel, /*want_noise=*/true);

  const bool cpu = PlatformOf(client->platform()) == "cpu";
  const Tolerance& tolerance = cpu ? reference.cpu : reference.other;
  const double noise = LargestDifference(drawn.noise, artifact.tensor("reference/noise").bytes);
  const double image =
      LargestDifference(drawn.images.values, artifact.tensor("reference/image").bytes);
  const bool passed = noise <= tolerance.noise && image <= tolerance.image;
  if (options.json) {
    const Json report = {{"passed", passed},
                         {"noise", {{"difference", noise}, {"tolerance", tolerance.noise}}},
                         {"image", {{"difference", image}, {"tolerance", tolerance.image}}},
                         {"plugin", client->api().path().string()}};
    std::cout << report.dump(1) << "\n";
  } else {
    std::printf("%s: noise differs by %.2g (allowed %.2g), images by %.2g (allowed %.2g)\n",
                passed ? "passed" : "FAILED", noise, tolerance.noise, image, tolerance.image);
  }
  return passed ? ExitCode::kOk : ExitCode::kVerify;
}

ExitCode Devices(const Options& options) {
  Json found = Json::array();
  for (const Plugin& plugin : SelectPlugins(options.plugin, PluginFolders())) {
    Json entry = {{"name", plugin.name}, {"path", plugin.path.string()}};
    try {
      PreloadCudaLibraries(plugin);
      const Client client(Api::Load(plugin.path), ClientOptions{});
      entry["api"] = client.api().Version();
      entry["platform"] = client.platform();
      entry["devices"] = Json::array();
      for (const DeviceInfo& device : client.Devices()) {
        entry["devices"].push_back({{"number", device.index},
                                    {"kind", device.kind},
                                    {"memory_bytes", device.memory_limit}});
      }
    } catch (const Error& error) {
      entry["error"] = error.what();
    }
    found.push_back(entry);
  }
  if (options.json) {
    std::cout << found.dump(1) << "\n";
    return ExitCode::kOk;
  }
  for (const Json& plugin : found) {
    std::cout << plugin["path"].get<std::string>() << "\n";
    if (plugin.contains("error")) {
      std::cout << "  does not work: " << plugin["error"].get<std::string>() << "\n";
      continue;
    }
    std::cout << "  " << plugin["platform"].get<std::string>() << ", PJRT "
              << plugin["api"].get<std::string>() << "\n";
    for (const Json& device : plugin["devices"]) {
      std::cout << "  device " << device["number"] << ": " << device["kind"].get<std::string>()
                << "\n";
    }
  }
  return ExitCode::kOk;
}

}  // namespace

ExitCode RunCommand(const Options& options, const std::atomic<bool>& cancel) {
  switch (options.command) {
    case Command::kInfo:
      return Info(options);
    case Command::kSample:
      return Sample(options, cancel);
    case Command::kVerify:
      return Verify(options, cancel);
    case Command::kDevices:
      return Devices(options);
  }
  return ExitCode::kUsage;
}

}  // namespace diffusion_sampler
