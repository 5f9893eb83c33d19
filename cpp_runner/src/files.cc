#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

#include "error.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Fail(const std::string& doing, const fs::path& path) {
  throw Error(ExitCode::kFile, "cannot " + doing + " " + path.string() + ": " +
                                   std::generic_category().message(errno));
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  [[nodiscard]] int number() const { return number_; }
  // Closes now; false if the file system reports an error only then.
  bool Close() { return close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

bool WriteAll(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// The file that a path stands for: what a symbolic link points to, be it there or not, else the
// path.
fs::path Target(const fs::path& given) {
  constexpr int kMostLinks = 40;
  fs::path path = given;
  std::error_code failed;
  for (int links = 0; links < kMostLinks; ++links) {
    if (!fs::is_symlink(path, failed)) return path;
    const fs::path next = fs::read_symlink(path, failed);
    if (failed) break;
    // A relative link is meant from where it lies.
    path = path.parent_path() / next;
  }
  errno = failed ? failed.value() : ELOOP;
  Fail("write", given);
}

// Writes into what is no regular file, a pipe or a device, and leaves it what it is.
void WriteThrough(const fs::path& path, std::string_view bytes) {
  Descriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.number() < 0 || !WriteAll(file.number(), bytes) || !file.Close()) Fail("write", path);
}

// Nobody can have made a file of this name beforehand.
std::string RandomName() {
  std::random_device source;
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string name;
  for (int i = 0; i < 12; ++i) name += kDigits[source() % kDigits.size()];
  return name;
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) {
  // Nothing is waited for: opening a pipe would otherwise last until somebody writes to it.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (file.number() < 0 || fstat(file.number(), &status) != 0) Fail("read", path);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ExitCode::kFile, "cannot read " + path.string() + ": it is not a regular file");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (address == MAP_FAILED) Fail("map", path);
  address_ = address;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (address_ != nullptr) munmap(address_, size_);
}

void WriteFileAtomically(const fs::path& given, std::string_view bytes) {
  const fs::path path = Target(given);
  struct stat status{};
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    WriteThrough(path, bytes);
    return;
  }
  const fs::path partial =
      path.parent_path() / ("." + path.filename().string() + ".partial" + RandomName());
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  Descriptor file(open(partial.c_str(), flags, 0666));
  if (file.number() < 0) Fail("write", given);
  const bool written = WriteAll(file.number(), bytes) && file.Close();
  if (!written || rename(partial.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    unlink(partial.c_str());
    errno = reason;
    Fail("write", given);
  }
}

void WriteToStdout(std::string_view bytes) {
  if (!WriteAll(STDOUT_FILENO, bytes)) Fail("write to", "standard output");
}

}  // namespace diffusion_sampler
