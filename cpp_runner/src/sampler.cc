#include "sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "error.h"

namespace diffusion_sampler {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Adds the time of its life to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double* sum) : sum_(sum) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  Stopwatch(Stopwatch&&) = delete;
  Stopwatch& operator=(Stopwatch&&) = delete;
  ~Stopwatch() { *sum_ += MillisecondsSince(start_); }

 private:
  double* sum_;
  Clock::time_point start_ = Clock::now();
};

// Key of a run-time array: its role, and its name where one role has several.
std::string Key(const Argument& argument) {
  switch (argument.role) {
    case Role::kSeed:
      return "seed";
    case Role::kFirst:
      return "first";
    case Role::kIndex:
      return "index";
    case Role::kLabel:
      return "label";
    default:
      return "parameter." + argument.name;
  }
}

// Adaptive samplers mark an image that did not arrive with not-a-number.
void CheckFinite(const Images& images, int64_t begin, int64_t first, const std::string& sampler) {
  for (int64_t image = begin; image < images.count(); ++image) {
    const auto start = images.values.begin() + image * images.size_of_one();
    if (!std::all_of(start, start + images.size_of_one(),
                     [](float v) { return std::isfinite(v); })) {
      throw Error(ExitCode::kDevice,
                  "image " + std::to_string(first + image) + " is not finite" +
                      (sampler.find("daptive") != std::string::npos
                           ? "; an adaptive sampler needs more --steps to arrive"
                           : ": it has met values beyond its numbers; other options, or another "
                             "seed, may not"));
    }
  }
}

}  // namespace

std::string PlatformOf(const std::string& pjrt_name) {
  const auto has = [&](const char* part) { return pjrt_name.find(part) != std::string::npos; };
  if (has("cuda") || has("gpu")) return "cuda";
  if (has("rocm")) return "rocm";
  if (has("cpu") || has("host")) return "cpu";
  return pjrt_name;
}

std::vector<int64_t> PlanBatches(int64_t count, const std::vector<int64_t>& sizes) {
  // What a run costs beyond its images, in images.
  constexpr int64_t kOverhead = 2;
  const int64_t largest = *std::max_element(sizes.begin(), sizes.end());
  std::vector<int64_t> plan(static_cast<size_t>(count / largest), largest);
  const auto rest = static_cast<size_t>(count % largest);
  // cheapest[n]: the least cost of n images, and the batch that begins it.
  std::vector<std::pair<int64_t, int64_t>> cheapest(rest + 1, {0, 0});
  for (size_t n = 1; n <= rest; ++n) {
    cheapest[n].first = INT64_MAX;
    for (const int64_t size : sizes) {
      const size_t left = n - std::min(n, static_cast<size_t>(size));
      const int64_t cost = size + kOverhead + cheapest[left].first;
      if (cost < cheapest[n].first) cheapest[n] = {cost, size};
    }
  }
  for (size_t n = rest; n > 0; n -= std::min(n, static_cast<size_t>(cheapest[n].second))) {
    plan.push_back(cheapest[n].second);
  }
  return plan;
}

Sampler::Sampler(const Artifact& artifact, const Client& client, const ExecutableCache& cache)
    : artifact_(artifact),
      client_(client),
      cache_(cache),
      platform_(PlatformOf(client.platform())) {
  std::set<std::string> available;
  for (const Bucket& bucket : artifact.manifest().buckets) available.insert(bucket.platform);
  if (available.count(platform_) == 0) {
    std::string list;
    for (const std::string& name : available) list += (list.empty() ? "" : ", ") + name;
    throw Error(ExitCode::kUnsupported, "the artifact has no programs for the platform " +
                                            platform_ + ", only for " + list +
                                            "; export it anew with --platforms " + platform_ +
                                            ", or use another plugin");
  }
}

std::vector<int64_t> Sampler::Plan(const Request& request) const {
  std::vector<int64_t> sizes;
  for (const Bucket& bucket : artifact_.manifest().buckets) {
    if (bucket.platform == platform_ && (!request.batch || bucket.batch == *request.batch)) {
      sizes.push_back(bucket.batch);
    }
  }
  if (sizes.empty()) {
    throw Error(ExitCode::kUsage, "the artifact has no programs for batches of " +
                                      std::to_string(request.batch.value_or(0)) + " on " +
                                      platform_ + "; `info` lists those that it has");
  }
  return PlanBatches(request.count, sizes);
}

int64_t Sampler::CountSteps(const Request& request) const {
  return static_cast<int64_t>(Plan(request).size()) *
         static_cast<int64_t>(request.parameters.at("steps"));
}

Executable Sampler::CompileProgram(const Program& program, const std::function<void()>& before) {
  before();
  const Stopwatch watch(&timings_.compile);
  bool hit = false;
  Executable executable = cache_.Get(client_, artifact_.tensor(program.tensor).bytes, &hit);
  ++timings_.programs;
  if (hit) ++timings_.cache_hits;
  // PJRT would write as many results as the program has, whatever room it is given.
  if (executable.NumOutputs() != program.outputs.size()) {
    throw Error(ExitCode::kArtifact, "the program '" + program.tensor + "' has " +
                                         std::to_string(executable.NumOutputs()) +
                                         " results, but the manifest lists " +
                                         std::to_string(program.outputs.size()));
  }
  return executable;
}

void Sampler::UploadWeights(const Program& program) {
  const Stopwatch watch(&timings_.upload);
  for (const Argument& input : program.inputs) {
    if (input.role != Role::kWeight || weights_.count(input.name) != 0) continue;
    const Tensor& tensor = artifact_.tensor("weights/" + input.name);
    weights_.emplace(
        input.name, client_.Upload(tensor.bytes.data(), tensor.dtype, tensor.shape, /*keep=*/true));
  }
}

const Sampler::Compiled& Sampler::Prepare(int64_t batch, const std::function<void()>& before_each) {
  const auto found = compiled_.find(batch);
  if (found != compiled_.end()) return found->second;
  const auto& buckets = artifact_.manifest().buckets;
  const auto bucket = std::find_if(buckets.begin(), buckets.end(), [&](const Bucket& candidate) {
    return candidate.platform == platform_ && candidate.batch == batch;
  });
  for (const Program* program : {&bucket->init, &bucket->step, &bucket->finish}) {
    UploadWeights(*program);
  }
  Compiled compiled{&*bucket, CompileProgram(bucket->init, before_each),
                    CompileProgram(bucket->step, before_each),
                    CompileProgram(bucket->finish, before_each)};
  return compiled_.emplace(batch, std::move(compiled)).first->second;
}

Buffer Sampler::UploadInts(const std::vector<int32_t>& values,
                           const std::vector<int64_t>& shape) const {
  return client_.Upload(values.data(), *FindDtype("I32"), shape, /*keep=*/false);
}

std::vector<Buffer> Sampler::Run(const Executable& executable, const Program& program,
                                 Scalars* scalars, const std::vector<Buffer>& state) const {
  std::vector<PJRT_Buffer*> inputs;
  inputs.reserve(program.inputs.size());
  for (const Argument& input : program.inputs) {
    if (input.role == Role::kWeight) {
      inputs.push_back(weights_.find(input.name)->second.get());
    } else if (input.role == Role::kState) {
      const auto& arrays = artifact_.manifest().state;
      const auto array = std::find_if(arrays.begin(), arrays.end(),
                                      [&](const Argument& a) { return a.name == input.name; });
      inputs.push_back(state[static_cast<size_t>(array - arrays.begin())].get());
    } else {
      inputs.push_back((*scalars)[Key(input)].get());
    }
  }
  return executable.Run(inputs, program.outputs.size());
}

void Sampler::Fetch(const Buffer& buffer, const Argument& array, int64_t wanted,
                    std::vector<float>* values) const {
  const int64_t batch = array.shape[0];
  const int64_t elements =
      std::accumulate(array.shape.begin() + 1, array.shape.end(), int64_t{1}, std::multiplies<>());
  std::vector<float> fetched(static_cast<size_t>(batch * elements));
  client_.Download(buffer.get(), fetched.data(), fetched.size() * sizeof(float));
  values->insert(values->end(), fetched.begin(), fetched.begin() + wanted * elements);
}

Drawn Sampler::Draw(const Request& request, const std::function<void()>& on_step,
                    const std::atomic<bool>& cancel, bool want_noise) {
  const Clock::time_point start = Clock::now();
  const Manifest& manifest = artifact_.manifest();
  const auto steps = static_cast<int32_t>(request.parameters.at("steps"));
  Drawn drawn{{}, {manifest.shape, {}}, {}};

  Scalars scalars;
  const std::vector<uint32_t> seed = {0, request.seed};
  scalars["seed"] = client_.Upload(seed.data(), *FindDtype("U32"), {2}, /*keep=*/false);
  for (const Parameter& parameter : manifest.parameters) {
    const double value = request.parameters.at(parameter.name);
    const auto real = static_cast<float>(value);
    scalars["parameter." + parameter.name] =
        parameter.integer ? UploadInts({static_cast<int32_t>(value)}, {})
                          : client_.Upload(&real, *FindDtype("F32"), {}, /*keep=*/false);
  }
  const auto stop_if_cancelled = [&] {
    if (cancel) throw Error(ExitCode::kInterrupted, "interrupted; nothing was written");
  };
  int64_t done = 0;
  for (const int64_t batch : Plan(request)) {
    const Compiled& programs = Prepare(batch, stop_if_cancelled);
    stop_if_cancelled();
    const Bucket& bucket = *programs.bucket;
    const int64_t wanted = std::min(batch, request.count - done);
    scalars["first"] = UploadInts({static_cast<int32_t>(request.first + done)}, {});
    std::vector<int32_t> labels(static_cast<size_t>(batch), 0);
    if (manifest.labels) {
      std::copy_n(request.labels.begin() + done, wanted, labels.begin());
    }
    scalars["label"] = UploadInts(labels, {batch});

    size_t snapshot = 0;
    const auto take = [&](const std::vector<Buffer>& state) {
      const Stopwatch watch(&timings_.finish);
      if (drawn.snapshots.size() == snapshot) drawn.snapshots.push_back({manifest.shape, {}});
      const auto image = Run(programs.finish, bucket.finish, &scalars, state);
      Fetch(image[0], bucket.finish.outputs[0], wanted, &drawn.snapshots[snapshot++].values);
    };

    std::vector<Buffer> state;
    {
      const Stopwatch watch(&timings_.init);
      state = Run(programs.init, bucket.init, &scalars, {});
    }
    if (want_noise) Fetch(state[0], bucket.init.outputs[0], wanted, &drawn.noise);
    if (request.snapshot_every > 0) take(state);
    for (int32_t index = 0; index < steps; ++index) {
      {
        const Stopwatch watch(&timings_.steps);
        // As it is needed: a file may speak of more steps than there is memory for their numbers.
        scalars["index"] = UploadInts({index}, {});
        state = Run(programs.step, bucket.step, &scalars, state);
      }
      ++timings_.steps_run;
      on_step();
      stop_if_cancelled();
      const bool due = request.snapshot_every > 0 && (index + 1) % request.snapshot_every == 0;
      if (due || (request.snapshot_every > 0 && index + 1 == steps)) take(state);
    }
    {
      const Stopwatch watch(&timings_.finish);
      const auto image = Run(programs.finish, bucket.finish, &scalars, state);
      Fetch(image[0], bucket.finish.outputs[0], wanted, &drawn.images.values);
    }
    // To `verify` it is a difference like others.
    if (!want_noise) CheckFinite(drawn.images, done, request.first, manifest.sampler);
    if (done == 0) timings_.first_image = MillisecondsSince(start);
    done += wanted;
  }
  return drawn;
}

}  // namespace diffusion_sampler
