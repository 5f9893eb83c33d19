#include "plugin_search.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "error.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;

// What ships a plugin, and where below site-packages (or a library folder) it lies.
struct Known {
  const char* name;
  const char* platform;
  const char* place;
};

constexpr Known kKnown[] = {
    {"jax-cuda13-pjrt", "cuda", "jax_plugins/xla_cuda13/xla_cuda_plugin.so"},
    {"jax-cuda12-pjrt", "cuda", "jax_plugins/xla_cuda12/xla_cuda_plugin.so"},
    {"jax-rocm7-pjrt", "rocm", "jax_plugins/xla_rocm7/xla_rocm_plugin.so"},
    {"libtpu", "tpu", "libtpu/libtpu.so"},
    {"lammps-jax-pjrt-cpu", "cpu", "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"},
    {"xla-cpu-pjrt", "cpu", "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"},
};

constexpr const char* kVariable = "DIFFUSION_SAMPLER_PLUGIN";

// site-packages of a Python environment, whatever its version.
void AddSitePackages(const fs::path& environment, std::vector<fs::path>* folders) {
  std::error_code ignored;
  for (fs::directory_iterator entries(environment / "lib", ignored), end;
       !ignored && entries != end; entries.increment(ignored)) {
    const fs::directory_entry& entry = *entries;
    if (entry.path().filename().string().rfind("python3", 0) != 0) continue;
    const fs::path folder = entry.path() / "site-packages";
    std::error_code unreadable;
    if (fs::is_directory(folder, unreadable) &&
        std::find(folders->begin(), folders->end(), folder) == folders->end()) {
      folders->push_back(folder);
    }
  }
}

bool IsPath(const std::string& wanted) {
  return wanted.find('/') != std::string::npos || fs::path(wanted).extension() == ".so";
}

std::string Searched(const std::vector<fs::path>& folders) {
  std::string text;
  for (const fs::path& folder : folders) text += (text.empty() ? "" : ", ") + folder.string();
  return text.empty() ? "no folder" : text;
}

}  // namespace

std::vector<fs::path> PluginFolders() {
  std::vector<fs::path> folders;
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  if (!ignored) AddSitePackages(self.parent_path().parent_path(), &folders);
  if (const char* environment = std::getenv("VIRTUAL_ENV")) AddSitePackages(environment, &folders);
  for (const char* system : {"/usr/local/lib", "/usr/lib"}) folders.emplace_back(system);
  return folders;
}

std::vector<Plugin> FindPlugins(const std::vector<fs::path>& folders) {
  std::vector<Plugin> plugins;
  std::error_code ignored;
  for (const Known& known : kKnown) {
    for (const fs::path& folder : folders) {
      for (const fs::path& path :
           {folder / known.place, folder / fs::path(known.place).filename()}) {
        if (fs::is_regular_file(path, ignored))
          plugins.push_back({known.name, known.platform, path});
      }
    }
  }
  return plugins;
}

std::vector<Plugin> SelectPlugins(const std::string& wanted, const std::vector<fs::path>& folders) {
  const char* variable = std::getenv(kVariable);
  const std::string asked = !wanted.empty() ? wanted : variable != nullptr ? variable : "";
  if (IsPath(asked)) {
    std::error_code ignored;
    if (!fs::is_regular_file(asked, ignored)) {
      throw Error(ExitCode::kPlugin, "there is no plugin file " + asked);
    }
    return {{"", "", fs::absolute(asked)}};
  }
  std::vector<Plugin> plugins = FindPlugins(folders);
  if (!asked.empty()) {
    plugins.erase(std::remove_if(plugins.begin(), plugins.end(),
                                 [&](const Plugin& plugin) {
                                   return plugin.name != asked && plugin.platform != asked;
                                 }),
                  plugins.end());
  }
  if (plugins.empty()) {
    throw Error(ExitCode::kPlugin,
                (asked.empty() ? "no PJRT plugin" : "no PJRT plugin '" + asked + "'") +
                    std::string(" was found in ") + Searched(folders) +
                    "; install one (pip install lammps-jax-pjrt-cpu, or jax-cuda13-pjrt for NVIDIA "
                    "GPUs), or give its file with --plugin or in " +
                    kVariable);
  }
  return plugins;
}

void PreloadCudaLibraries(const Plugin& plugin) {
  if (plugin.path.filename().string().find("cuda") == std::string::npos) return;
  // …/site-packages/jax_plugins/xla_cuda13/xla_cuda_plugin.so
  const fs::path packages = plugin.path.parent_path().parent_path().parent_path() / "nvidia";
  std::vector<fs::path> libraries;
  std::error_code ignored;
  for (fs::recursive_directory_iterator entries(packages, ignored), end; !ignored && entries != end;
       entries.increment(ignored)) {
    const fs::directory_entry& entry = *entries;
    if (entry.path().filename().string().find(".so.") != std::string::npos) {
      libraries.push_back(entry.path());
    }
  }
  // Libraries need one another: the second round finds what the first has loaded.
  for (int round = 0; round < 2; ++round) {
    for (const fs::path& library : libraries) dlopen(library.c_str(), RTLD_LAZY | RTLD_GLOBAL);
  }
}

}  // namespace diffusion_sampler
