// The sampling loop: three programs, chained on the device.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "artifact.h"
#include "executable_cache.h"
#include "image.h"
#include "pjrt.h"

namespace diffusion_sampler {

// What to draw. `parameters` holds a value for each parameter of the artifact, `labels` one for
// each image (empty for unconditional models).
struct Request {
  uint32_t seed = 0;
  int64_t first = 0;
  int64_t count = 1;
  std::map<std::string, double> parameters;
  std::vector<int32_t> labels;
  std::optional<int64_t> batch;  // use programs for this batch size only
  int64_t snapshot_every = 0;    // 0: none
};

// What was drawn. `snapshots` holds all images after every `snapshot_every` steps, noise first.
struct Drawn {
  std::vector<float> noise;  // the state `x` after `init`, if asked for
  Images images;
  std::vector<Images> snapshots;
};

// Milliseconds of each phase, and whether each program came from the cache.
struct Timings {
  double upload = 0;
  double compile = 0;
  double init = 0;
  double steps = 0;
  double finish = 0;
  double first_image = 0;  // from the start of Draw to the first finished batch
  int64_t steps_run = 0;
  int cache_hits = 0;
  int programs = 0;
};

// The batch sizes by which to draw `count` images with the least work, the cost of a batch of B
// being B and a little more. `sizes` must not be empty.
std::vector<int64_t> PlanBatches(int64_t count, const std::vector<int64_t>& sizes);

class Sampler {
 public:
  // Throws Error(kUnsupported) if the artifact has no programs for the client's platform.
  Sampler(const Artifact& artifact, const Client& client, const ExecutableCache& cache);

  // Draws images. `on_step` is called after each step; once `cancel` is set, the step or the
  // compilation that is running is the last, and Error(kInterrupted) is thrown. `want_noise` also
  // fetches the initial noise, and takes images that are not finite as they are.
  Drawn Draw(const Request& request, const std::function<void()>& on_step,
             const std::atomic<bool>& cancel, bool want_noise = false);

  // Steps that `Draw` will take for this request, over all batches.
  [[nodiscard]] int64_t CountSteps(const Request& request) const;

  [[nodiscard]] const Timings& timings() const { return timings_; }

 private:
  struct Compiled {
    const Bucket* bucket;
    Executable init;
    Executable step;
    Executable finish;
  };
  using Scalars = std::map<std::string, Buffer, std::less<>>;

  [[nodiscard]] std::vector<int64_t> Plan(const Request& request) const;
  const Compiled& Prepare(int64_t batch, const std::function<void()>& before_each);
  Executable CompileProgram(const Program& program, const std::function<void()>& before);
  void UploadWeights(const Program& program);
  std::vector<Buffer> Run(const Executable& executable, const Program& program, Scalars* scalars,
                          const std::vector<Buffer>& state) const;
  [[nodiscard]] Buffer UploadInts(const std::vector<int32_t>& values,
                                  const std::vector<int64_t>& shape) const;
  void Fetch(const Buffer& buffer, const Argument& array, int64_t wanted,
             std::vector<float>* values) const;

  const Artifact& artifact_;
  const Client& client_;
  const ExecutableCache& cache_;
  std::string platform_;
  std::map<std::string, Buffer, std::less<>> weights_;
  std::map<int64_t, Compiled> compiled_;
  Timings timings_;
};

// A PJRT platform's name in the artifact's spelling.
std::string PlatformOf(const std::string& pjrt_name);

}  // namespace diffusion_sampler
