#include "plugin_search.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;
using testing::ErrorOf;

class PluginSearch : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("DIFFUSION_SAMPLER_PLUGIN");
    folder_ = fs::temp_directory_path() / "plugin_search_test";
    fs::remove_all(folder_);
    for (const char* place :
         {"xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so", "jax_plugins/xla_cuda12/xla_cuda_plugin.so",
          "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"}) {
      fs::create_directories((folder_ / place).parent_path());
      std::ofstream(folder_ / place) << "plugin";
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] std::vector<std::string> Names(const std::string& wanted) const {
    std::vector<std::string> names;
    for (const Plugin& plugin : SelectPlugins(wanted, {folder_})) names.push_back(plugin.name);
    return names;
  }

  fs::path folder_;
};

using Strings = std::vector<std::string>;

TEST_F(PluginSearch, AcceleratorsComeFirst) {
  EXPECT_EQ(Names(""), (Strings{"jax-cuda12-pjrt", "lammps-jax-pjrt-cpu", "xla-cpu-pjrt"}));
}

TEST_F(PluginSearch, PlatformAndPackageNarrowIt) {
  EXPECT_EQ(Names("cpu"), (Strings{"lammps-jax-pjrt-cpu", "xla-cpu-pjrt"}));
  EXPECT_EQ(Names("xla-cpu-pjrt"), (Strings{"xla-cpu-pjrt"}));
}

TEST_F(PluginSearch, FlagGoesBeforeTheEnvironment) {
  setenv("DIFFUSION_SAMPLER_PLUGIN", "cuda", 1);
  EXPECT_EQ(Names(""), (Strings{"jax-cuda12-pjrt"}));
  EXPECT_EQ(Names("xla-cpu-pjrt"), (Strings{"xla-cpu-pjrt"}));
}

TEST_F(PluginSearch, APathIsTakenAsItIs) {
  const fs::path path = folder_ / "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so";
  EXPECT_EQ(SelectPlugins(path.string(), {}).front().path, path);
  EXPECT_EQ(ErrorOf([] { SelectPlugins("/no/such.so", {}); }).substr(0, 2), "6:");
}

TEST_F(PluginSearch, NothingFoundSaysWhatToInstall) {
  for (const char* wanted : {"tpu", "abacus"}) {
    const std::string error = ErrorOf([&] { SelectPlugins(wanted, {folder_}); });
    EXPECT_EQ(error.substr(0, 2), "6:");
    EXPECT_NE(error.find("pip install"), std::string::npos);
  }
}

}  // namespace
}  // namespace diffusion_sampler
