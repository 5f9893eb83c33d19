#include "files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

namespace fs = std::filesystem;
using testing::ErrorOf;

std::string ContentOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / "files";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  [[nodiscard]] size_t Entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }
  fs::path folder_;
};

TEST_F(Files, AreReadAndReplacedWhole) {
  const fs::path path = folder_ / "a";
  WriteFileAtomically(path, "one");
  WriteFileAtomically(path, "three");
  EXPECT_EQ(MappedFile(path).bytes(), "three");
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(Files, APipeIsNotReadAndNobodyWaitsForIt) {
  const fs::path path = folder_ / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(ErrorOf([&] { const MappedFile file(path); }),
            "3: cannot read " + path.string() + ": it is not a regular file");
}

TEST_F(Files, APipeIsWrittenIntoAndStays) {
  const fs::path path = folder_ / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] { read = ContentOf(path); });
  WriteFileAtomically(path, "through");
  reader.join();
  EXPECT_EQ(read, "through");
  EXPECT_TRUE(fs::is_fifo(path));
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(Files, ALinkStaysAndItsTargetIsWritten) {
  fs::create_directories(folder_ / "elsewhere");
  fs::create_symlink(fs::path("elsewhere") / "target", folder_ / "link");
  // First the target is not there yet, then it is.
  for (const char* content : {"new", "newer"}) {
    WriteFileAtomically(folder_ / "link", content);
    EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
    EXPECT_EQ(ContentOf(folder_ / "elsewhere" / "target"), content);
  }
  EXPECT_EQ(Entries(), 2U);
}

TEST_F(Files, ALinkToItselfIsRefused) {
  fs::create_symlink("link", folder_ / "link");
  EXPECT_EQ(ErrorOf([&] { WriteFileAtomically(folder_ / "link", "x"); }).substr(0, 2), "3:");
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(Files, WhatCannotBeWrittenLeavesNothing) {
  fs::create_directories(folder_ / "folder" / "within");
  EXPECT_EQ(ErrorOf([&] { WriteFileAtomically(folder_ / "folder", "x"); }).substr(0, 2), "3:");
  EXPECT_EQ(ErrorOf([&] { WriteFileAtomically(folder_ / "no" / "file", "x"); }).substr(0, 2), "3:");
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(Files, AFullQuotaLeavesNothing) {
  // As main does: the signal would end the process.
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const struct rlimit small{4096, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error =
      ErrorOf([&] { WriteFileAtomically(folder_ / "a", std::string(8192, 'x')); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(error.substr(0, 2), "3:") << error;
  EXPECT_EQ(Entries(), 0U);
}

}  // namespace
}  // namespace diffusion_sampler
