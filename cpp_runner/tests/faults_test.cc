// The commands with a fake plugin, of which each call and each event fails once: a documented exit
// with one line each time, and nothing left alive.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "commands.h"
#include "fake_plugin.h"
#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;
using testing::ToyArtifact;

// What a command came to.
struct Outcome {
  int code = 0;
  std::string message;
};

class FakePlugin : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(::testing::TempDir()) /
        ("fake-" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    ToyArtifact toy;
    toy.programs = {{"init", "fake init F32:2,2,3,1 U32:2,2"},
                    {"step", "fake step F32:2,2,3,1 U32:2,2 donates 2"},
                    {"finish", "fake finish F32:2,2,3,1"}};
    toy.manifest["programs"][0]["finish"]["tensor"] = "programs/finish";
    toy.manifest["parameters"]["steps"]["max"] = 2'000'000'000;
    // Its reference rows are zeros: what `verify` finds is not what is tested here.
    for (const char* array : {"noise", "image"}) {
      toy.manifest["reference"]["tolerance"]["cpu"][array] = 10.0;
    }
    std::ofstream(artifact()) << toy.Bytes();
    library_ = dlopen(FAKE_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
    order_ = reinterpret_cast<decltype(order_)>(dlsym(library_, "FakePluginOrder"));
    report_ = reinterpret_cast<decltype(report_)>(dlsym(library_, "FakePluginReport"));
    ASSERT_NE(order_, nullptr);
    ASSERT_NE(report_, nullptr);
    Order(FakeOrders{});
  }

  [[nodiscard]] std::string artifact() const { return (folder_ / "toy.safetensors").string(); }

  // Tells the plugin what to do, with one device if nothing else is said.
  void Order(FakeOrders orders) {
    if (orders.devices == 0) orders.devices = 1;
    if (orders.code == 0) orders.code = 13;
    order_(&orders);
  }

  // The same, with one order.
  void Order(int64_t FakeOrders::* which, int64_t value) {
    FakeOrders orders{};
    orders.*which = value;
    Order(orders);
  }

  FakeReport Report() {
    FakeReport report;
    report_(&report);
    return report;
  }

  // Runs a command as `main` does, but in this process, and forgets what it prints.
  Outcome Run(std::vector<std::string> arguments, bool cancelled = false) {
    arguments.insert(arguments.begin(), "diffusion-sampler");
    arguments.insert(arguments.end(), {"--plugin", FAKE_PLUGIN});
    std::vector<const char*> words;
    for (const std::string& argument : arguments) words.push_back(argument.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Outcome outcome;
    const std::atomic<bool> cancel{cancelled};
    try {
      const auto options = ParseOptions(static_cast<int>(words.size()), words.data());
      outcome.code = static_cast<int>(RunCommand(*options, cancel));
    } catch (const Error& error) {
      outcome = {static_cast<int>(error.code()), error.what()};
    }
    printed_ = ::testing::internal::GetCapturedStdout();
    ::testing::internal::GetCapturedStderr();
    return outcome;
  }

  Outcome Sample(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "sample", artifact(), "-o", (folder_ / "out" / "x.npy").string(), "--seed", "7"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }

  void ExpectNothingAlive(const std::string& when) {
    const FakeReport report = Report();
    EXPECT_EQ(report.live_clients, 0) << when;
    EXPECT_EQ(report.live_buffers, 0) << when;
    EXPECT_EQ(report.live_events, 0) << when;
    EXPECT_EQ(report.live_executables, 0) << when;
    EXPECT_EQ(report.live_errors, 0) << when;
    EXPECT_STREQ(report.misuse, "") << when;
  }

  // Fails the first call or event, then the second, until there are no more. Returns how many
  // failed.
  int64_t FailEach(int64_t FakeOrders::* which, int32_t code,
                   const std::vector<std::string>& arguments) {
    for (int64_t n = 1;; ++n) {
      FakeOrders orders{};
      orders.*which = n;
      orders.code = code;
      Order(orders);
      fs::remove_all(folder_ / "cache");
      fs::remove_all(folder_ / "out");
      const Outcome outcome = Run(arguments);
      const FakeReport report = Report();
      const std::string when = arguments[0] + ", failure " + std::to_string(n) + " in " +
                               report.failed_in + ": " + std::to_string(outcome.code) + " " +
                               outcome.message;
      ExpectNothingAlive(when);
      if (report.failed_in[0] == '\0') {
        EXPECT_EQ(outcome.code, 0) << when;
        return n - 1;
      }
      EXPECT_EQ(outcome.message.find('\n'), std::string::npos) << when;
      if (outcome.code == 0) {
        allowed_.insert(report.failed_in);
      } else {
        EXPECT_TRUE(outcome.code == 6 || outcome.code == 7) << when;
        EXPECT_NE(outcome.message.find("fails as ordered"), std::string::npos) << when;
        // No file, no half of one.
        EXPECT_TRUE(!fs::exists(folder_ / "out") || fs::is_empty(folder_ / "out")) << when;
      }
    }
  }

  fs::path folder_;
  void* library_ = nullptr;
  void (*order_)(const FakeOrders*) = nullptr;
  void (*report_)(FakeReport*) = nullptr;
  std::string printed_;
  // The functions whose failure a command survived.
  std::set<std::string> allowed_;
};

TEST_F(FakePlugin, DrawsAndLeavesNothingAlive) {
  const Outcome outcome = Sample({"-n", "3"});
  EXPECT_EQ(outcome.code, 0) << outcome.message;
  EXPECT_TRUE(fs::exists(folder_ / "out" / "x.npy"));
  ExpectNothingAlive("after drawing");
  EXPECT_EQ(Report().runs, 2 * (1 + 5 + 1));
}

TEST_F(FakePlugin, EachCallFailsOnce) {
  const std::vector<std::string> sample = {
      "sample", artifact(), "-o", (folder_ / "out" / "x.npy").string(), "-n", "3"};
  for (const int32_t code : {8, 12, 13}) {
    EXPECT_GT(FailEach(&FakeOrders::fail_call, code, sample), 60);
    EXPECT_GT(FailEach(&FakeOrders::fail_call, code, {"verify", artifact()}), 40);
    EXPECT_GT(FailEach(&FakeOrders::fail_call, code, {"devices"}), 5);
  }
  // What a run can do without: its programs are not kept, and the memory is not known. `devices`
  // tells of each plugin that it does not work.
  for (const std::string& name : allowed_) {
    const std::set<std::string> known = {
        "PJRT_Executable_Serialize",   "PJRT_LoadedExecutable_GetExecutable",
        "PJRT_Device_MemoryStats",     "PJRT_Plugin_Initialize",
        "PJRT_Client_Create",          "PJRT_Client_PlatformName",
        "PJRT_Client_PlatformVersion", "PJRT_Client_AddressableDevices",
        "PJRT_Device_GetDescription",  "PJRT_DeviceDescription_Kind"};
    EXPECT_EQ(known.count(name), 1U) << name;
  }
}

TEST_F(FakePlugin, EachEventFailsOnce) {
  const std::vector<std::string> sample = {
      "sample", artifact(), "-o", (folder_ / "out" / "x.npy").string(), "-n", "3"};
  EXPECT_GT(FailEach(&FakeOrders::fail_event, 8, sample), 20);
  EXPECT_GT(FailEach(&FakeOrders::fail_event, 13, {"verify", artifact()}), 10);
  // Nobody waits until a weight may be freed, as long as it is in use.
  EXPECT_EQ(allowed_, std::set<std::string>{"the event of a kept array"});
}

TEST_F(FakePlugin, EveryDeviceDrawsTheSame) {
  std::map<int, std::string> images;
  for (const int64_t devices : {1, 2, 8}) {
    for (int device = 0; device < devices; ++device) {
      Order(&FakeOrders::devices, devices);
      const Outcome outcome = Sample({"-n", "3", "--device", std::to_string(device)});
      ASSERT_EQ(outcome.code, 0) << outcome.message;
      ExpectNothingAlive("device " + std::to_string(device));
      std::ifstream file(folder_ / "out" / "x.npy", std::ios::binary);
      images[device] = {std::istreambuf_iterator<char>(file), {}};
      EXPECT_EQ(images[device], images[0]);
    }
  }
  Order(&FakeOrders::devices, 2);
  const Outcome beyond = Sample({"--device", "2"});
  EXPECT_EQ(beyond.code, 6);
  EXPECT_NE(beyond.message.find("there is no device 2"), std::string::npos) << beyond.message;
}

TEST_F(FakePlugin, ASignalIsHeardBeforeAnythingIsCompiled) {
  // So many steps that their numbers alone would fill the memory.
  const Outcome outcome = Run(
      {"sample", artifact(), "-o", (folder_ / "out" / "x.npy").string(), "--steps", "2000000000"},
      /*cancelled=*/true);
  EXPECT_EQ(outcome.code, 130) << outcome.message;
  EXPECT_EQ(Report().runs, 0);
  ExpectNothingAlive("after an interruption");
}

TEST_F(FakePlugin, AnImageThatIsNotFiniteIsADifferenceToVerify) {
  Order(&FakeOrders::not_finite, 1);
  const Outcome drawn = Sample();
  EXPECT_EQ(drawn.code, 7);
  EXPECT_NE(drawn.message.find("image 0 is not finite"), std::string::npos) << drawn.message;
  EXPECT_EQ(drawn.message.find("--steps"), std::string::npos) << drawn.message;
  EXPECT_EQ(Run({"verify", artifact()}).code, 8);
  ExpectNothingAlive("after images that are not finite");
}

TEST_F(FakePlugin, DevicesAreListed) {
  Order(&FakeOrders::devices, 8);
  EXPECT_EQ(Run({"devices"}).code, 0);
  EXPECT_NE(printed_.find("device 7: fake"), std::string::npos) << printed_;
}

TEST_F(FakePlugin, AShortTableIsNotReadBeyondItsEnd) {
  // Long enough for errors and the first function only.
  Order(&FakeOrders::table_bytes, 80);
  const Outcome outcome = Sample();
  EXPECT_TRUE(outcome.code == 5 || outcome.code == 6) << outcome.code << outcome.message;
  EXPECT_NE(outcome.message.find("too old"), std::string::npos) << outcome.message;
  ExpectNothingAlive("with a short table");
}

}  // namespace
}  // namespace diffusion_sampler
