#include "executable_cache.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <system_error>
#include <vector>

#include "files.h"
#include "sha256.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDigestLength = 64;
constexpr size_t kMaxEntries = 64;

// What the processor can do: compiled code of another one may not run here.
std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  std::string found;
  while (std::getline(file, line) && !line.empty()) {
    if (line.rfind("model name", 0) == 0 || line.rfind("flags", 0) == 0 ||
        line.rfind("Features", 0) == 0) {
      found += line + "\n";
    }
  }
  return found;
}

std::string PluginIdentity(const fs::path& path) {
  return path.string() + "\n" + std::to_string(fs::file_size(path)) + "\n" +
         std::to_string(fs::last_write_time(path).time_since_epoch().count());
}

// The entry's program, if the entry is there and whole.
std::optional<std::string> ReadEntry(const fs::path& entry) {
  std::error_code ignored;
  if (!fs::is_regular_file(entry, ignored)) return std::nullopt;
  const MappedFile file(entry);
  if (file.bytes().size() <= kDigestLength) return std::nullopt;
  const std::string_view program = file.bytes().substr(kDigestLength);
  if (Sha256(program) != file.bytes().substr(0, kDigestLength)) return std::nullopt;
  return std::string(program);
}

void DeleteOldest(const fs::path& folder) {
  std::vector<std::pair<fs::file_time_type, fs::path>> entries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    entries.emplace_back(entry.last_write_time(), entry.path());
  }
  std::sort(entries.begin(), entries.end());
  for (size_t i = 0; i + kMaxEntries < entries.size(); ++i) fs::remove(entries[i].second);
}

}  // namespace

fs::path ExecutableCache::DefaultFolder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"))
    return fs::path(cache) / "diffusion-sampler";
  if (const char* home = std::getenv("HOME"))
    return fs::path(home) / ".cache" / "diffusion-sampler";
  return {};
}

Executable ExecutableCache::Get(const Client& client, std::string_view stablehlo, bool* hit) const {
  *hit = false;
  if (folder_.empty()) return client.Compile(stablehlo);
  std::string key(stablehlo);
  key += CompileOptions();
  key += PluginIdentity(client.api().path()) + client.platform_version() + Processor();
  const fs::path entry = folder_ / Sha256(key);
  try {
    if (const auto program = ReadEntry(entry)) {
      Executable executable = client.Load(*program);
      *hit = true;
      return executable;
    }
  } catch (const Error&) {
    // An entry that cannot be read or loaded is as good as none: the program is compiled below.
  }
  Executable executable = client.Compile(stablehlo);
  Store(entry, executable);
  return executable;
}

void ExecutableCache::Store(const fs::path& entry, const Executable& executable) const {
  try {
    fs::create_directories(folder_);
    const std::string program = executable.Serialize();
    WriteFileAtomically(entry, Sha256(program) + program);
    DeleteOldest(folder_);
  } catch (const Error&) {
    // Not every plugin can serialize, not every home can be written: the run goes on without a
    // cache.
  } catch (const fs::filesystem_error&) {
    // Likewise.
  }
}

}  // namespace diffusion_sampler
