// Where PJRT plugins are found.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace diffusion_sampler {

// A plugin file and the name by which it can be asked for.
struct Plugin {
  std::string name;      // of the Python package that ships it
  std::string platform;  // cuda, rocm, tpu or cpu
  std::filesystem::path path;
};

// The folders that are searched, in order: site-packages of the environment in which this program
// is installed, of $VIRTUAL_ENV, and the system's library folders.
std::vector<std::filesystem::path> PluginFolders();

// The plugins in these folders, accelerators first, better-tested CPU plugins before others.
std::vector<Plugin> FindPlugins(const std::vector<std::filesystem::path>& folders);

// The plugins to try, in order. `wanted` (else the environment variable DIFFUSION_SAMPLER_PLUGIN)
// is a path, a platform or a package's name; empty means whatever is found. Throws Error(kPlugin)
// if there is nothing to try, saying where was searched.
std::vector<Plugin> SelectPlugins(const std::string& wanted,
                                  const std::vector<std::filesystem::path>& folders);

// Loads the CUDA libraries that lie beside a plugin in Python's `nvidia` packages, so that the
// plugin finds them. What fails to load is left to the plugin's own search.
void PreloadCudaLibraries(const Plugin& plugin);

}  // namespace diffusion_sampler
