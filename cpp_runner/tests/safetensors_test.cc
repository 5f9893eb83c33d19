#include "safetensors.h"

#include <gtest/gtest.h>

#include "toy_artifact.h"

namespace diffusion_sampler {
namespace {

using nlohmann::ordered_json;
using testing::ErrorOf;
using testing::MakeContainer;

ordered_json Entry(const char* dtype, const ordered_json& shape, const ordered_json& offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

std::string Parse(const ordered_json& header, size_t bytes) {
  const std::string file = MakeContainer(header, std::string(bytes, '\0'));
  return ErrorOf([&] { ParseContainer(file); });
}

TEST(Container, ReadsWhatTheFormatAllows) {
  const std::string file =
      MakeContainer(ordered_json{{"__metadata__", {{"k", "v"}}},
                                 {"a", Entry("F32", {2, 8}, {0, 64})},
                                 {"b", Entry("U8", {3}, {64, 67})},
                                 {"padding.0", Entry("U8", {61}, {67, 128})},
                                 {"c", Entry("I32", ordered_json::array(), {128, 132})}},
                    std::string(132, '\0'));
  const Container container = ParseContainer(file);
  EXPECT_EQ(container.tensors.size(), 3U);
  EXPECT_EQ(container.tensors.at("a").shape, (std::vector<int64_t>{2, 8}));
  EXPECT_EQ(container.tensors.at("c").bytes.size(), 4U);
  EXPECT_EQ(container.metadata.at("k"), "v");
}

TEST(Container, RefusesLies) {
  EXPECT_NE(Parse({{"a", Entry("F31", {1}, {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {2}, {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {1}, {0, 8})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {1}, {4, 0})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {-1}, {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {1.0}, {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", "1", {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {1}, {0})}}, 4), "");
  EXPECT_NE(Parse({{"a", Entry("F32", {1ULL << 62U, 1ULL << 62U, 4}, {0, 4})}}, 4), "");
  EXPECT_NE(Parse({{"a", 3}}, 0), "");
  EXPECT_NE(Parse({{"__metadata__", {{"k", 1}}}}, 0), "");
  // Holes, overlaps, data that nobody owns.
  EXPECT_NE(Parse({{"a", Entry("U8", {64}, {64, 128})}}, 128), "");
  EXPECT_NE(Parse({{"a", Entry("U8", {64}, {0, 64})}, {"b", Entry("U8", {64}, {0, 64})}}, 64), "");
  EXPECT_NE(Parse({{"a", Entry("U8", {64}, {0, 64})}}, 65), "");
  // Not at a multiple of 64.
  EXPECT_NE(Parse({{"a", Entry("U8", {1}, {0, 1})}, {"b", Entry("U8", {1}, {1, 2})}}, 2), "");
}

TEST(Container, RefusesPaddingThatIsNot) {
  std::string file = MakeContainer({{"padding.0", Entry("U8", {4}, {0, 4})}}, "\0\0x\0");
  file.back() = 'x';
  EXPECT_NE(ErrorOf([&] { ParseContainer(file); }), "");
  EXPECT_NE(Parse({{"padding.0", Entry("U8", {64}, {0, 64})}}, 64), "");
}

TEST(Container, RefusesEveryTruncation) {
  const std::string file =
      MakeContainer({{"a", Entry("F32", {4}, {0, 16})}}, std::string(16, '\0'));
  for (size_t length = 0; length < file.size(); ++length) {
    const std::string part = file.substr(0, length);
    EXPECT_EQ(ErrorOf([&] { ParseContainer(part); }).substr(0, 2), "4:") << length;
  }
}

// In time that grows with their number; with its square it would be minutes.
TEST(Container, ReadsManyTensors) {
  const int count = 50'000;
  std::string text = "{";
  for (int i = 0; i < count; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            R"(":{"dtype":"U8","shape":[64],"data_offsets":[)" + std::to_string(64 * i) + "," +
            std::to_string(64 * (i + 1)) + "]}";
  }
  const std::string file = MakeContainer(text + "}", std::string(64 * count, '\0'));
  EXPECT_EQ(ParseContainer(file).tensors.size(), static_cast<size_t>(count));
}

TEST(Container, RefusesALongHeader) {
  std::string file(16, '\0');
  file[3] = 1;  // 2^24
  file.resize(8 + (size_t{1} << 24U) + 56, ' ');
  // As many bytes as the format allows, and then 56 more.
  EXPECT_NE(ErrorOf([&] { ParseContainer(file); }).find("multiple of 64"), std::string::npos);
  file[0] = 56;
  EXPECT_NE(ErrorOf([&] { ParseContainer(file); }).find("its header claims"), std::string::npos);
}

TEST(Json, RefusesDepthRepetitionAndBadText) {
  EXPECT_NE(ErrorOf([] { ParseJson(std::string(100'000, '['), "x"); }), "");
  EXPECT_NE(ErrorOf([] { ParseJson(R"({"a":1,"a":2})", "x"); }), "");
  EXPECT_NE(ErrorOf([] { ParseJson("{\"a\":\"\xff\"}", "x"); }), "");
  EXPECT_NE(ErrorOf([] { ParseJson("1e999", "x"); }), "");
  EXPECT_EQ(ErrorOf([] { ParseJson(R"({"a":{"a":[1,2]},"b":{"a":1}})", "x"); }), "");
}

}  // namespace
}  // namespace diffusion_sampler
