#include "progress.h"

#include <unistd.h>

#include <cstdio>
#include <string>

namespace diffusion_sampler {

Progress::Progress(int64_t total, int64_t images, bool quiet)
    : total_(total), images_(images), shown_(!quiet && isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (shown_ && done_ > 0) std::fputc('\n', stderr);
}

void Progress::Step() {
  ++done_;
  if (!shown_) return;
  const Clock::time_point now = Clock::now();
  // Ten times a second is as often as anybody looks.
  if (done_ < total_ && now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  Draw();
}

void Progress::Draw() const {
  constexpr int kWidth = 30;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double fraction = static_cast<double>(done_) / static_cast<double>(total_);
  const int filled = static_cast<int>(fraction * kWidth);
  std::fprintf(stderr, "\r[%s%s] %lld/%lld steps  %.1f images/s  %.0f s left ",
               std::string(static_cast<size_t>(filled), '#').c_str(),
               std::string(static_cast<size_t>(kWidth - filled), '.').c_str(),
               static_cast<long long>(done_), static_cast<long long>(total_),
               static_cast<double>(images_) * fraction / seconds,
               seconds * (1.0 - fraction) / fraction);
  std::fflush(stderr);
}

}  // namespace diffusion_sampler
