// A progress bar on standard error, if that is a terminal.
#pragma once

#include <chrono>
#include <cstdint>

namespace diffusion_sampler {

class Progress {
 public:
  // `total` steps over `images` images. With `quiet`, or without a terminal, nothing is shown.
  Progress(int64_t total, int64_t images, bool quiet);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;
  ~Progress();

  // One more step is done.
  void Step();

 private:
  using Clock = std::chrono::steady_clock;

  void Draw() const;

  int64_t total_;
  int64_t images_;
  int64_t done_ = 0;
  bool shown_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_;
};

}  // namespace diffusion_sampler
